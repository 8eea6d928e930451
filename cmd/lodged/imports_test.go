package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "lodge"

// pkg is the output of go list for a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

// leaves are the packages below gateway that all may share. They import nothing of Lodge.
var leaves = []string{module + "/gateway/durable", module + "/gateway/hold", module + "/gateway/limit", module + "/gateway/post", module + "/gateway/relay", module + "/gateway/sockets"}

// people is for all as well. It imports gateway, and nothing else of Lodge.
const people = module + "/gateway/people"

// The import rule: gateway imports nothing of Lodge but its own subpackages; mail, storage, https
// and vmhost import gateway, its leaves and their own subpackages, so never each other. Only cmd
// and e2e may import all. Packages for tests, whose names end in "test", may also import those of
// gateway, and only such packages import them.
func TestImportRule(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		exit, _ := errors.AsType[*exec.ExitError](err)
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	}
	var seen []string
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, area(p.ImportPath))
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
	for _, top := range []string{"gateway", "mail", "storage", "https", "vmhost", "cmd"} {
		if !slices.Contains(seen, top) {
			t.Errorf("go list shows no package in %s", top)
		}
	}
}

func TestImportRuleCatches(t *testing.T) {
	for name, tt := range map[string]struct {
		importing string
		imports   []string
		bad       []string
	}{
		"a neighbour":                  {"lodge/mail", []string{"lodge/storage"}, []string{"lodge/storage"}},
		"a neighbour's subpackage":     {"lodge/mail/queue", []string{"lodge/vmhost/netid"}, []string{"lodge/vmhost/netid"}},
		"the store":                    {"lodge/https", []string{"lodge/gateway/store"}, []string{"lodge/gateway/store"}},
		"gateway looks down":           {"lodge/gateway/dns", []string{"fmt", "lodge/vmhost"}, []string{"lodge/vmhost"}},
		"the wiring":                   {"lodge/vmhost", []string{"lodge/cmd/lodged"}, []string{"lodge/cmd/lodged"}},
		"the test harness":             {"lodge/gateway", []string{"lodge/gateway/sandboxtest"}, []string{"lodge/gateway/sandboxtest"}},
		"a package for tests":          {"lodge/vmhost", []string{"lodge/vmhost/libvirttest"}, []string{"lodge/vmhost/libvirttest"}},
		"tests across":                 {"lodge/mail/mailtest", []string{"lodge/storage"}, []string{"lodge/storage"}},
		"a name that begins alike":     {"lodge/mail", []string{"lodge/mailbox"}, []string{"lodge/mailbox"}},
		"a new top-level package":      {"lodge/util", []string{"lodge/gateway"}, []string{"lodge/gateway"}},
		"the gateway and its own":      {"lodge/mail", []string{"net", "lodge/gateway", "lodge/mail/queue", "github.com/emersion/go-smtp"}, nil},
		"gateway's own":                {"lodge/gateway/control", []string{"lodge/gateway", "lodge/gateway/store"}, nil},
		"people":                       {"lodge/https/access", []string{"lodge/gateway/people"}, nil},
		"people look around":           {"lodge/gateway/people", []string{"lodge/gateway", "lodge/gateway/store"}, []string{"lodge/gateway/store"}},
		"its parent":                   {"lodge/vmhost/netid", []string{"lodge/vmhost"}, nil},
		"the wiring imports all":       {"lodge/cmd/lodged", []string{"lodge/gateway/store", "lodge/mail", "lodge/vmhost"}, nil},
		"tests in the sandbox":         {"lodge/vmhost/libvirttest", []string{"lodge/gateway/sandboxtest"}, nil},
		"the suite imports all":        {"lodge/e2e", []string{"lodge/gateway/store", "lodge/gateway/sandboxtest"}, nil},
		"importing packages elsewhere": {"github.com/x/y", []string{"lodge/mail"}, nil},
	} {
		var want []string
		for _, bad := range tt.bad {
			want = append(want, tt.importing+" imports "+bad)
		}
		if diff := cmp.Diff(want, violations(pkg{tt.importing, tt.imports})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// violations lists the imports of p that break the rule.
func violations(p pkg) (all []string) {
	for _, path := range p.Imports {
		if !allowed(p.ImportPath, path) {
			all = append(all, p.ImportPath+" imports "+path)
		}
	}
	return all
}

func allowed(importing, path string) bool {
	from, to := area(importing), area(path)
	forTests := strings.HasSuffix(importing, "test")
	switch {
	case from == "" || to == "": // one of them is not part of Lodge
		return true
	case from == "cmd" || from == "e2e" || forTests && to == "gateway" && strings.HasSuffix(path, "test"):
		return true
	case slices.Contains(leaves, importing):
		return false
	case importing == people:
		return path == module+"/gateway"
	case strings.HasSuffix(path, "test") && !forTests:
		return false
	case to == from:
		return true
	}
	return (path == module+"/gateway" || path == people || slices.Contains(leaves, path)) && slices.Contains([]string{"mail", "storage", "https", "vmhost"}, from)
}

// area is the top-level directory of a package of Lodge, "mail" for lodge/mail/queue, and "" for
// other packages.
func area(path string) string {
	rest, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}
