package main

import (
	"encoding"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"lodge/gateway"
)

// options are the flags that are not keys of the configuration file.
type options struct {
	file    string
	check   bool
	version bool
}

// readConfig merges the defaults, the file and the flags, in rising order of precedence.
func readConfig(args []string, stderr io.Writer) (Config, options, error) {
	cfg := defaultConfig()
	var opts options
	fromFlags := defaultConfig()
	flags := configFlags(&fromFlags, &opts, stderr)
	if err := flags.Parse(args); err != nil {
		return Config{}, opts, err
	}
	if flags.NArg() > 0 {
		return Config{}, opts, gateway.Invalid("lodged takes no arguments, but got %q", flags.Arg(0)).WithHint("lodged -help lists the flags.")
	}
	if err := readConfigFile(opts.file, &cfg); err != nil {
		return Config{}, opts, err
	}
	set := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
	from, to := reflect.ValueOf(fromFlags), reflect.ValueOf(&cfg).Elem()
	for i := range to.NumField() {
		if set[flagName(to.Type().Field(i))] {
			to.Field(i).Set(from.Field(i))
		}
	}
	if cfg.ACME != nil {
		cfg.ACME.setDefaults(cfg.Domain)
	}
	return cfg, opts, cfg.check()
}

// configFlags makes one flag per field of cfg, with the field's value as its default, and those of
// opts.
func configFlags(cfg *Config, opts *options, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet("lodged", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.file, "config", defaultConfigFile, "configuration `file` (TOML)")
	flags.BoolVar(&opts.check, "check", false, "check the configuration and exit")
	flags.BoolVar(&opts.version, "version", false, "print the version and exit")
	fields := reflect.ValueOf(cfg).Elem()
	for i := range fields.NumField() {
		f := fields.Type().Field(i)
		if isTable(f) {
			continue
		}
		flags.Var(flagValue{fields.Field(i)}, flagName(f), f.Tag.Get("help"))
	}
	return flags
}

// isTable reports whether a field is one table or several, which are in the file alone.
func isTable(f reflect.StructField) bool {
	return f.Type.Kind() == reflect.Pointer || f.Type == reflect.TypeFor[loginProviders]()
}

// flagName is the name of a field on the command line: https-port for the key https_port.
func flagName(f reflect.StructField) string { return strings.ReplaceAll(f.Tag.Get("toml"), "_", "-") }

// flagValue is a flag.Value that reads into a field of Config.
type flagValue struct{ reflect.Value }

// String implements flag.Value. The flag package also calls it on the zero flagValue.
func (v flagValue) String() string {
	if !v.IsValid() {
		return ""
	}
	switch list := v.Interface().(type) {
	case []netip.Addr, []netip.Prefix, []string:
		return strings.Trim(fmt.Sprint(list), "[]")
	default:
		return fmt.Sprint(list)
	}
}

// IsBoolFlag allows a boolean flag without a value.
func (v flagValue) IsBoolFlag() bool { return v.IsValid() && v.Kind() == reflect.Bool }

// Set implements flag.Value.
func (v flagValue) Set(s string) error {
	switch field := v.Addr().Interface().(type) {
	case *string:
		*field = s
	case *int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("not a number: %q", s)
		}
		*field = n
	case *bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("neither true nor false: %q", s)
		}
		*field = b
	case *[]netip.Addr:
		return parseList(s, netip.ParseAddr, field)
	case *[]netip.Prefix:
		return parseList(s, netip.ParsePrefix, field)
	case *[]string:
		return parseList(s, func(one string) (string, error) { return one, nil }, field)
	case encoding.TextUnmarshaler:
		return field.UnmarshalText([]byte(s))
	default:
		return fmt.Errorf("no flag can have type %s", v.Type())
	}
	return nil
}

// parseList reads what commas separate; nothing is an empty list.
func parseList[T any](s string, parse func(string) (T, error), to *[]T) error {
	var list []T
	if s == "" {
		*to = nil
		return nil
	}
	for one := range strings.SplitSeq(s, ",") {
		value, err := parse(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		list = append(list, value)
	}
	*to = list
	return nil
}
