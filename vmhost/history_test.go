package vmhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/inventory"
)

// What was found at a checkpoint is read as it was written, a damaged file is not, and the newest maxKept stay.
func TestExaminedIsKept(t *testing.T) {
	h := &Host{cfg: Config{StateDir: t.TempDir()}}
	gatewaytest.Must(t, os.Mkdir(h.cfg.examinedDir(), 0o700))
	want := examined{
		Image: inventory.Inventory{Packages: map[string]inventory.Package{"dpkg": {Version: "1.22"}}, Ports: []string{"tcp"}},
		Now: inventory.Inventory{
			Users: map[string]inventory.Account{"shop": {ID: 1001, Rest: "1001::/home/shop:/bin/sh"}},
			Files: map[string]inventory.File{"/etc/a\nb": {Type: 'f', Mode: 0o4755, Bytes: 7, Modified: time.Unix(1_700_000_000, 0).UTC(), Link: "x"}}, Cut: true,
		},
	}
	gatewaytest.Must(t, h.keep("first", want))
	got, err := readExamined(h.cfg.examinedFile("first"))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	text, err := os.ReadFile(h.cfg.examinedFile("first"))
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(h.cfg.examinedFile("first"), text[:len(text)/2], 0o600))
	if _, err := readExamined(h.cfg.examinedFile("first")); err == nil {
		t.Error("half a file was read")
	}
	old := time.Now().Add(-time.Hour)
	for i := range maxKept {
		id := gateway.CheckpointID(fmt.Sprint(i))
		gatewaytest.Must(t, h.keep(id, want))
		gatewaytest.Must(t, os.Chtimes(h.cfg.examinedFile(id), old, old.Add(time.Duration(i)*time.Second)))
	}
	gatewaytest.Must(t, os.Chtimes(h.cfg.examinedFile("first"), old, old.Add(-time.Second)))
	gatewaytest.Must(t, h.keep("last", want))
	entries, err := filepath.Glob(filepath.Join(h.cfg.examinedDir(), "*"))
	gatewaytest.Must(t, err)
	if _, err := os.Stat(h.cfg.examinedFile("0")); len(entries) != maxKept || !os.IsNotExist(err) {
		t.Errorf("%d files are kept; the oldest: %v", len(entries), err)
	}
	gatewaytest.Must(t, h.dropExamined("last"))
	gatewaytest.Must(t, h.dropExamined("last"))
	if _, err := readExamined(h.cfg.examinedFile("last")); !os.IsNotExist(err) {
		t.Errorf("after it was dropped: %v", err)
	}
}

// The script of a reader runs each command with its input, and nothing that a command prints passes its
// limit.
func TestReaderScript(t *testing.T) {
	script := string(readerScript([]command{{line: "cat /a"}, {line: "sh -s", stdin: []byte("echo x")}}))
	for _, want := range []string{
		"n=$(head -c 0 /dev/vdd | { cat /a; } | head -c 100663296 | tee /dev/vde | wc -c)", "n=$(head -c 6 /dev/vdf | { sh -s; } |", "tee /dev/vdg |",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("%q is not in:\n%s", want, script)
		}
	}
}
