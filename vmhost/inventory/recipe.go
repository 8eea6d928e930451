package inventory

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"lodge/gateway"
)

// Limits on what a recipe has of files.
const (
	MaxFileBytes   = 64 << 10
	maxRecipeBytes = gateway.MaxUserDataBytes * 3 / 4
)

// cloudConfig is the part of cloud-init's user data that recipes use
// (https://docs.cloud-init.io/en/latest/reference/modules.html).
type cloudConfig struct {
	Boot     [][]string  `yaml:"bootcmd,omitempty"` // before all others, at each boot
	Update   bool        `yaml:"package_update,omitempty"`
	Packages []string    `yaml:"packages,omitempty"`
	Files    []writeFile `yaml:"write_files,omitempty"`
	Commands [][]string  `yaml:"runcmd,omitempty"`
}

type writeFile struct {
	Path        string `yaml:"path"`
	Owner       string `yaml:"owner"`
	Permissions string `yaml:"permissions"`
	Encoding    string `yaml:"encoding,omitempty"`
	Content     string `yaml:"content"`
	Defer       bool   `yaml:"defer,omitempty"`
}

// accountName is what useradd(8) allows.
var accountName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}\$?$`)

// firstUserID is the lowest UID of people (adduser.conf(5)); below it are those of services, without a
// home directory of their own.
const firstUserID = 1000

// Recipe writes user data that makes changes to a new VM: packages and accounts first, then files,
// owners and links, then units. content returns what a file has; ok is false for those that could not
// be read. Files that may hold secrets are left out, and listed, and so are large ones unless objects has
// them. cloud-init does it once, after the VM's first boot.
func Recipe(vm string, c gateway.Changes, content func(path string) (data []byte, ok bool), objects Objects) (gateway.Recipe, error) {
	r := &recipe{left: []gateway.LeftOut{}, large: objects}
	r.packages(c.Packages)
	r.accounts(c.Accounts)
	for _, f := range c.Files {
		r.file(f, content)
	}
	r.units(c.Units)
	if c.Cut {
		r.leave("/", fmt.Sprintf("the VM has more than %d files: some are missing here", maxFiles))
	}
	text, err := yaml.Marshal(r.config)
	if err != nil {
		return gateway.Recipe{}, fmt.Errorf("write recipe: %w", err)
	}
	head := "#cloud-config\n# What was changed in the VM " + vm + " since its image. Left out:\n"
	for _, l := range r.left {
		head += "#   " + strconv.Quote(l.Path) + ": " + l.Why + "\n"
	}
	if len(r.left) == 0 {
		head = "#cloud-config\n# What was changed in the VM " + vm + " since its image.\n"
	}
	return gateway.Recipe{UserData: head + string(text), Objects: r.objects, LeftOut: r.left}, nil
}

// recipe is a recipe that is being written.
type recipe struct {
	config  cloudConfig
	left    []gateway.LeftOut
	bytes   int // of files
	large   Objects
	objects []gateway.RecipeObject
}

func (r *recipe) leave(at, why string) { r.left = append(r.left, gateway.LeftOut{Path: at, Why: why}) }

func (r *recipe) run(command ...string) { r.config.Commands = append(r.config.Commands, command) }

// packages installs those that were installed by themselves, in the version that the archive has, and
// removes those that were removed.
func (r *recipe) packages(all []gateway.PackageChange) {
	var gone []string
	for _, p := range all {
		switch {
		case p.Change == gateway.Added && p.Manual:
			r.config.Packages = append(r.config.Packages, p.Name)
		case p.Change == gateway.Gone && p.Manual:
			gone = append(gone, p.Name)
		}
	}
	r.config.Update = len(r.config.Packages) > 0
	if len(gone) > 0 {
		r.run(append([]string{"apt-get", "purge", "--yes", "--"}, gone...)...)
	}
}

// accounts makes groups and users with the same numbers, before files get their owners. Passwords are
// left out.
func (r *recipe) accounts(all []gateway.AccountChange) {
	for _, kind := range []string{"group", "user"} {
		for _, a := range all {
			switch {
			case a.Kind != kind:
			case !accountName.MatchString(a.Name):
				r.leave(a.Name, "it is not a name for an account")
			case kind == "user" && a.Change == gateway.Changed, kind == "group" && a.Change == gateway.Gone:
				r.leave(a.Name, "the "+kind+" was "+a.Change+": do that by hand")
			case kind == "group":
				r.group(a)
			default:
				r.user(a)
			}
		}
	}
}

func (r *recipe) group(a gateway.AccountChange) {
	if a.Change == gateway.Added {
		r.boot(`getent group "$1" >/dev/null || groupadd --gid "$2" "$1"`, a.Name, strconv.Itoa(a.ID))
	}
	if a.Change != gateway.Gone && a.Rest != "" {
		r.run("gpasswd", "--members", a.Rest, a.Name)
	}
}

func (r *recipe) user(a gateway.AccountChange) {
	switch a.Change {
	case gateway.Added:
		f := append(strings.Split(a.Rest, ":"), "", "", "", "") // gid, gecos, home, shell
		home := "--no-create-home"
		if a.ID >= firstUserID {
			home = "--create-home"
		}
		r.boot(`id -u "$1" >/dev/null 2>&1 || useradd --uid "$2" --gid "$3" --comment "$4" --home-dir "$5" --shell "$6" "$7" "$1"`,
			a.Name, strconv.Itoa(a.ID), f[0], f[1], f[2], f[3], home)
	case gateway.Gone:
		r.run("userdel", a.Name)
	}
}

// boot runs a script of sh(1) with arguments.
func (r *recipe) boot(script string, args ...string) {
	r.config.Boot = append(r.config.Boot, append([]string{"sh", "-c", script, "sh"}, args...))
}

func (r *recipe) file(f gateway.FileChange, content func(path string) ([]byte, bool)) {
	owner := f.Owner + ":" + f.Group
	switch {
	case !utf8.ValidString(f.Path) || strings.ContainsFunc(f.Path, func(c rune) bool { return c < ' ' || c == 0x7f }):
		r.leave(f.Path, "its name has control characters")
	case f.Change == gateway.Gone:
		r.run("rm", "-rf", "--", f.Path)
	case f.Type == "file" && slices.Contains(f.What, "type"):
		r.leave(f.Path, "it was no file in the image")
	case f.Type == "directory":
		r.replaced(f)
		r.run("install", "-d", "-o", f.Owner, "-g", f.Group, "-m", f.Mode, "--", f.Path)
	case f.Type == "link":
		r.replaced(f)
		r.run("ln", "-sfnT", "--", f.Link, f.Path)
		r.run("chown", "-h", owner, "--", f.Path)
	case f.Type != "file":
		r.leave(f.Path, "it is no file, directory or link")
	case f.Change == gateway.Changed && !slices.Contains(f.What, "content"):
		r.run("chown", owner, "--", f.Path)
		r.run("chmod", f.Mode, "--", f.Path)
	default:
		r.write(f, owner, content)
	}
}

// replaced removes what the image has in the place of something else.
func (r *recipe) replaced(f gateway.FileChange) {
	if slices.Contains(f.What, "type") {
		r.run("rm", "-rf", "--", f.Path)
	}
}

func (r *recipe) write(f gateway.FileChange, owner string, content func(path string) ([]byte, bool)) {
	if f.Bytes > MaxFileBytes {
		r.fetch(f, owner)
		return
	}
	data, ok := content(f.Path)
	why := secret(f.Path, data)
	switch {
	case why != "":
		r.leave(f.Path, why)
		return
	case !ok:
		r.leave(f.Path, "it could not be read")
		return
	case r.bytes+len(data) > maxRecipeBytes:
		r.leave(f.Path, "the recipe has no more room; copy it by itself")
		return
	}
	if numeric(f.Owner) || numeric(f.Group) { // no account has it: cloud-init takes names alone, and writes no file after an unknown one
		r.run("chown", owner, "--", f.Path)
		owner = "root:root"
	}
	w := writeFile{Path: f.Path, Owner: owner, Permissions: f.Mode, Content: string(data), Defer: !strings.HasPrefix(f.Path, "/etc/apt/")}
	if !isText(data) {
		w.Encoding, w.Content = "b64", base64.StdEncoding.EncodeToString(data)
	}
	r.bytes += len(w.Content)
	r.config.Files = append(r.config.Files, w)
}

func (r *recipe) units(all []gateway.UnitChange) {
	verbs := map[string][]string{}
	for _, u := range all {
		verb := map[string]string{"enabled": "enable", "disabled": "disable", "masked": "mask", "unmasked": "unmask"}[u.Change]
		verbs[verb] = append(verbs[verb], u.Name)
	}
	if len(all) > 0 || slices.ContainsFunc(r.config.Files, func(w writeFile) bool { return path.Dir(w.Path) == "/etc/systemd/system" }) {
		r.run("systemctl", "daemon-reload")
	}
	for _, verb := range []string{"unmask", "mask", "disable", "enable"} {
		if units := verbs[verb]; len(units) > 0 {
			r.run(append([]string{"systemctl", verb, "--"}, units...)...)
		}
	}
	if units := verbs["enable"]; len(units) > 0 { // restart: a package may have started it with the old settings
		r.run(append([]string{"systemctl", "restart", "--no-block", "--"}, units...)...)
	}
	if units := verbs["disable"]; len(units) > 0 {
		r.run(append([]string{"systemctl", "stop", "--no-block", "--"}, units...)...)
	}
}

// numeric reports whether an owner has no name.
func numeric(owner string) bool {
	_, err := strconv.Atoi(owner)
	return err == nil
}

// isText reports whether data can stand in YAML as it is.
func isText(data []byte) bool {
	return utf8.Valid(data) && !bytes.ContainsFunc(data, func(c rune) bool {
		return c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c == 0x85 || c == 0x2028 || c == 0x2029 || c == 0xfeff
	})
}
