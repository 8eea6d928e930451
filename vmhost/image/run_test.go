package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

func TestExplain(t *testing.T) {
	exit := &exec.ExitError{}
	for name, row := range map[string]struct {
		tail string
		kind gateway.Kind
		want string
	}{
		"mirror":    {"Err:1 …\nE: Failed to fetch http://x Could not connect\nE: more\n", gateway.KindUnavailable, "Failed to fetch http://x"},
		"keys":      {"W: The following signatures … NO_PUBKEY 6ED0E7B8\n", gateway.KindUnavailable, "keys of that Debian release"},
		"other":     {"I: one\nE: setup failed: what\nI: main() …\n", gateway.KindInternal, "mmdebstrap failed: setup failed: what"},
		"no output": {"", gateway.KindInternal, "mmdebstrap failed: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := explain("mmdebstrap", row.tail, exit)
			if gateway.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.want) || !errors.Is(err, exit) {
				t.Errorf("%v (%v)", err, gateway.KindOf(err))
			}
		})
	}
	full := explain("mke2fs", "mke2fs: No space left on device while writing\n", exit)
	if err := explainFull(full, "/images"); gateway.KindOf(err) != gateway.KindNoSpace || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full: %v", err)
	}
}

func TestMBR(t *testing.T) {
	sector := mbr([]byte{0xeb, 0x63}, 4096)
	if !bootable(sector) || len(sector) != sectorBytes {
		t.Error("not bootable")
	}
	want := []byte{0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 8, 0, 0}
	if diff := cmp.Diff(want, sector[446:462]); diff != "" {
		t.Error(diff)
	}
	if bootable(make([]byte, sectorBytes)) {
		t.Error("zeros are bootable")
	}
	if err := writeBoot(t.TempDir()+"/disk", make([]byte, sectorBytes), make([]byte, partitionStart)); err == nil {
		t.Error("a core image over the partition was written")
	}
}

// However output is divided into writes, lines of ordinary length are passed on complete, and the
// tail is its end.
func FuzzOutput(f *testing.F) {
	f.Add("I: a\nI: b\nend", uint8(1))
	f.Add(strings.Repeat("x", 10000)+"\n", uint8(255))
	f.Fuzz(func(t *testing.T, text string, step uint8) {
		var lines []string
		o := output{line: func(line string) { lines = append(lines, line) }}
		for rest := text; rest != ""; {
			n := min(len(rest), int(step)+1)
			if wrote, err := o.Write([]byte(rest[:n])); wrote != n || err != nil {
				t.Fatal(wrote, err)
			}
			rest = rest[n:]
		}
		if !strings.HasSuffix(text, string(o.tail)) || len(o.tail) != min(len(text), tailBytes) {
			t.Errorf("tail %q of %q", o.tail, text)
		}
		want := strings.Split(text, "\n")
		for _, line := range want {
			if len(line) >= tailBytes {
				return
			}
		}
		if diff := cmp.Diff(want[:len(want)-1], lines); diff != "" && len(want) > 1 {
			t.Error(diff)
		}
	})
}

// Every image gets the common files, Debian 12 its own as well, and scripts are executable.
func TestOverlay(t *testing.T) {
	for name, own := range map[string]bool{"debian-13": false, "debian-12": true} {
		dir := t.TempDir()
		if err := (&build{recipe: Recipe{Name: name}}).writeOverlay(dir); err != nil {
			t.Fatal(err)
		}
		for path, mode := range map[string]os.FileMode{
			"customize.sh": 0o755, "root/usr/lib/lodge/seed": 0o755, "root/usr/lib/lodge/clock": 0o755, "root/etc/fstab": 0o644, "root/boot/grub/grub.cfg": 0o644,
		} {
			if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != mode {
				t.Errorf("%s: %s: %v %v", name, path, info, err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "root/usr/local/bin/aws")); (err == nil) != own {
			t.Errorf("%s: its own aws: %v", name, err)
		}
	}
}

// The scripts of the images parse.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	if err := (&build{recipe: Recipe{Name: "debian-12"}}).writeOverlay(dir); err != nil {
		t.Fatal(err)
	}
	scripts := 0
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), "#!/bin/sh") {
			return err
		}
		scripts++
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if err != nil || scripts < 7 {
		t.Errorf("%d scripts, %v", scripts, err)
	}
}
