package cli

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/man/lodge.1 anew")

// docs/man/lodge.1 is made from the verbs. After a change of theirs: make man.
func TestManPage(t *testing.T) {
	parser, err := (&app{}).parser(t.Context(), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	page, file := manPage(parser.Model), filepath.FromSlash("../../../docs/man/lodge.1")
	if *update {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored), page); diff != "" {
		t.Errorf("%s is stale, make man writes it (-stored +new):\n%s", file, diff)
	}
}

// Every verb and flag has a help text, and man finds no fault with the page.
func TestManPageIsComplete(t *testing.T) {
	parser, err := (&app{}).parser(t.Context(), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range parser.Model.Leaves(true) {
		if verb.Help == "" || verb.ClosestGroup() == nil {
			t.Errorf("lodge %s has no help text or no group", verb.Path())
		}
		for _, value := range verb.Flags {
			if !value.Hidden && value.Help == "" {
				t.Errorf("lodge %s --%s has no help text", verb.Path(), value.Name)
			}
		}
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("groff is not installed")
	}
	groff := exec.CommandContext(t.Context(), "groff", "-man", "-Tutf8", "-ww", "-z", "../../../docs/man/lodge.1")
	if out, err := groff.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v: %s", err, out)
	}
}

// manPage is the manual in the macros of man(7).
func manPage(app *kong.Application) string {
	var page strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&page, format+"\n", args...) }
	summary, rest, _ := strings.Cut(app.Help, "\n\n")
	line(`.\" Made from the verbs of lodge by make man; do not edit.`)
	line(".TH LODGE 1 \"\" Lodge \"Lodge manual\"\n.SH NAME\nlodge \\- %s", roff(strings.TrimSuffix(summary, ".")))
	line(".SH SYNOPSIS\n.B lodge\n.I command\n.RI [ flags ]\n.SH DESCRIPTION\n%s", roff(rest))
	line(".SH FLAGS")
	manFlags(line, app.Flags)
	line(".SH COMMANDS")
	group := ""
	for _, verb := range app.Leaves(true) {
		if title := verb.ClosestGroup().Title; title != group {
			group = title
			line(".SS %s", roff(strings.TrimSuffix(title, ":")))
		}
		line(".TP\n.B %s\n%s", roff("lodge "+verb.Path()+arguments(verb)), roff(verb.Help))
		if verb.Detail != "" {
			line(".IP\n%s", strings.ReplaceAll(roff(verb.Detail), "\n\n", "\n.IP\n"))
		}
		line(".RS")
		for _, arg := range verb.Positional {
			line(".TP\n.I %s\n%s", roff(arg.Name), roff(arg.Help))
		}
		for node := verb; node.Parent != nil; node = node.Parent { // not the global flags
			manFlags(line, node.Flags)
		}
		line(".RE")
	}
	line(".SH SEE ALSO\n.BR ssh (1),\n.BR ssh_config (5),\n.BR virsh (1)")
	return page.String()
}

func manFlags(line func(string, ...any), flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		name := "--" + f.Name
		if f.Short != 0 {
			name = "-" + string(f.Short) + ", " + name
		}
		if !f.IsBool() {
			name += "=" + f.FormatPlaceHolder()
		}
		line(".TP\n.B %s\n%s", roff(name), roff(f.Help))
	}
}

func arguments(verb *kong.Node) (all string) {
	for _, arg := range verb.Positional {
		all += " " + arg.Summary()
	}
	return all
}

// roff escapes text for a line of its own.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
