package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"lodge/gateway"
)

// Config is all that can be set of lodged. Every key may be missing from the file; flags of the same name beat it.
type Config struct {
	Domain        string       `toml:"domain"`         // VMs are at https://<vm>.<domain>
	Owner         string       `toml:"owner"`          // who a one-time login logs in, as the app in the VM sees it
	Listen        []netip.Addr `toml:"listen"`         // addresses for the web and mail from outside
	HTTPSPort     int          `toml:"https_port"`     // part of URLs unless it is 443
	HTTPPort      int          `toml:"http_port"`      // redirects to https
	SMTPPort      int          `toml:"smtp_port"`      // inbound mail
	GuestNet      netip.Prefix `toml:"guest_net"`      // IPv4 net that guest addresses are taken from
	StateDir      string       `toml:"state_dir"`      // everything that must be kept
	RunDir        string       `toml:"run_dir"`        // sockets; gone after a reboot
	Image         string       `toml:"image"`          // base image of a VM that names none
	Accel         string       `toml:"accel"`          // auto, kvm or tcg
	LibvirtSocket string       `toml:"libvirt_socket"` // libvirtd's unix socket
	LogLevel      slog.Level   `toml:"log_level"`      // DEBUG, INFO, WARN or ERROR
}

const defaultConfigFile = "/etc/lodge/lodge.toml"

func defaultConfig() Config {
	return Config{
		Domain:        "lodge.localhost",
		Owner:         "owner@lodge.localhost",
		Listen:        []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		HTTPSPort:     443,
		HTTPPort:      80,
		SMTPPort:      25,
		GuestNet:      netip.MustParsePrefix("10.213.0.0/16"),
		StateDir:      "/var/lib/lodge",
		RunDir:        "/run/lodge",
		Image:         "debian-13",
		Accel:         "auto",
		LibvirtSocket: "/run/libvirt/libvirt-sock",
		LogLevel:      slog.LevelInfo,
	}
}

// readConfig puts defaults, the file and the flags together, in that order.
func readConfig(args []string, stderr io.Writer) (Config, error) {
	scratch := defaultConfig()
	flags, file := configFlags(&scratch, stderr)
	if err := flags.Parse(args); err != nil {
		return Config{}, err
	}
	if flags.NArg() > 0 {
		return Config{}, gateway.Invalid("lodged takes no arguments, but got %q", flags.Arg(0)).WithHint("lodged -help lists the flags.")
	}
	cfg := defaultConfig()
	if err := readConfigFile(*file, &cfg); err != nil {
		return Config{}, err
	}
	flags, _ = configFlags(&cfg, stderr)
	if err := flags.Parse(args); err != nil {
		return Config{}, err
	}
	return cfg, cfg.check()
}

func readConfigFile(path string, cfg *Config) error {
	meta, err := toml.DecodeFile(path, cfg)
	if errors.Is(err, fs.ErrNotExist) && path == defaultConfigFile {
		return nil
	}
	if err != nil {
		return gateway.Invalid("read %s: %v", path, err).WithHint("Correct the file; every key may be left out.")
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return gateway.Invalid("%s has an unknown key %q", path, unknown[0]).WithHint("lodged -help lists the keys; flags have the same names.")
	}
	return nil
}

// configFlags makes one flag per key, with cfg's value as its default.
func configFlags(cfg *Config, stderr io.Writer) (*flag.FlagSet, *string) {
	f := flag.NewFlagSet("lodged", flag.ContinueOnError)
	f.SetOutput(stderr)
	file := f.String("config", defaultConfigFile, "configuration file (TOML)")
	f.StringVar(&cfg.Domain, "domain", cfg.Domain, "VMs are at https://<vm>.<domain>")
	f.StringVar(&cfg.Owner, "owner", cfg.Owner, "e-mail address of this host's owner")
	f.Func("listen", "addresses to listen on, separated by commas", func(s string) (err error) {
		cfg.Listen, err = parseAddrs(s)
		return err
	})
	f.IntVar(&cfg.HTTPSPort, "https_port", cfg.HTTPSPort, "port for HTTPS")
	f.IntVar(&cfg.HTTPPort, "http_port", cfg.HTTPPort, "port that redirects to HTTPS")
	f.IntVar(&cfg.SMTPPort, "smtp_port", cfg.SMTPPort, "port for inbound mail")
	f.TextVar(&cfg.GuestNet, "guest_net", cfg.GuestNet, "IPv4 net of guest addresses")
	f.StringVar(&cfg.StateDir, "state_dir", cfg.StateDir, "directory of all that is kept")
	f.StringVar(&cfg.RunDir, "run_dir", cfg.RunDir, "directory of sockets")
	f.StringVar(&cfg.Image, "image", cfg.Image, "base image of new VMs")
	f.StringVar(&cfg.Accel, "accel", cfg.Accel, "auto, kvm or tcg")
	f.StringVar(&cfg.LibvirtSocket, "libvirt_socket", cfg.LibvirtSocket, "libvirtd's unix socket")
	f.TextVar(&cfg.LogLevel, "log_level", cfg.LogLevel, "DEBUG, INFO, WARN or ERROR")
	return f, file
}

func parseAddrs(s string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for one := range strings.SplitSeq(s, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(one))
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func (c Config) check() error {
	for name, port := range map[string]int{"https_port": c.HTTPSPort, "http_port": c.HTTPPort, "smtp_port": c.SMTPPort} {
		if port < 1 || port > 65535 {
			return gateway.Invalid("%s is %d", name, port).WithHint("A port is a number from 1 to 65535.")
		}
	}
	for name, dir := range map[string]string{"state_dir": c.StateDir, "run_dir": c.RunDir} {
		if !filepath.IsAbs(dir) {
			return gateway.Invalid("%s is %q", name, dir).WithHint("Give an absolute path.")
		}
	}
	switch {
	case !c.GuestNet.IsValid() || !c.GuestNet.Addr().Is4() || c.GuestNet.Bits() > 29:
		return gateway.Invalid("guest_net is %s", c.GuestNet).WithHint("Give an IPv4 net of at least 8 addresses, such as 10.213.0.0/16.")
	case len(c.Listen) == 0:
		return gateway.Invalid("listen is empty").WithHint("Give at least one address, such as 127.0.0.1.")
	case c.Accel != "auto" && c.Accel != "kvm" && c.Accel != "tcg":
		return gateway.Invalid("accel is %q", c.Accel).WithHint("Choose auto, kvm or tcg.")
	}
	for _, a := range c.Listen {
		if a.IsUnspecified() {
			return gateway.Invalid("listen has %s, which would take the guests' own doors too", a).
				WithHint("Name the host's addresses one by one.")
		}
	}
	return checkDomain(c.Domain)
}

func checkDomain(domain string) error {
	if domain == gateway.InternalDomain || len(domain) > 180 || !strings.Contains(domain, ".") {
		return gateway.Invalid("domain is %q", domain).WithHint("Give a domain of at least two labels, such as lodge.localhost.")
	}
	for label := range strings.SplitSeq(domain, ".") {
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(label, "-") != label || label == "" || len(label) > 63 {
			return gateway.Invalid("domain is %q: the label %q is not a host name's", domain, label).
				WithHint("Use lower-case letters, digits and dashes, such as lodge.localhost.")
		}
	}
	return nil
}

// prepareDirs makes the directories of the state, and says so early when they cannot be made.
func (c Config) prepareDirs() error {
	for _, dir := range []string{c.StateDir, c.RunDir, c.path("disks"), c.path("mail"), c.path("objects"), c.path("ca"), c.path("ssh")} {
		if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // libvirt's QEMU, another user, passes through to its disks
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

func (c Config) path(name string) string { return filepath.Join(c.StateDir, name) }
