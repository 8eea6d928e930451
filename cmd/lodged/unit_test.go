package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/sockets"
)

// unitFile returns the unit with a program that exists.
func unitFile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/lodged.service")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "/usr/local/bin/lodged", "/bin/true")
}

// systemd, of Debian 12 at the oldest, warns of nothing.
func TestUnitIsValid(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd")
	}
	file := filepath.Join(t.TempDir(), "lodged.service")
	if err := os.WriteFile(file, []byte(unitFile(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "lodged.service") {
		t.Errorf("%v: %s", err, out)
	}
}

// systemd stores as many sockets as lodged puts there at most. It passes their names in one variable, of
// which execve(2) takes 128 KiB.
func TestUnitStoresTheSockets(t *testing.T) {
	if want := fmt.Sprintf("\nFileDescriptorStoreMax=%d\n", sockets.MaxStored); !strings.Contains(unitFile(t), want) {
		t.Errorf("the unit has no %q", want)
	}
	longest := len("udp-65535-" + gateway.NewID().String() + ":")
	if all := len("LISTEN_FDNAMES=") + longest*sockets.MaxStored; all > 128<<10 {
		t.Errorf("the names take %d bytes", all)
	}
}

// The next start follows an error after a pause, and all else at once.
func TestUnitPausesAfterAnError(t *testing.T) {
	line := regexp.MustCompile(`(?m)^ExecStopPost=/bin/sh -c '(.*)'$`).FindStringSubmatch(unitFile(t))
	if line == nil {
		t.Fatal("the unit has no ExecStopPost=")
	}
	script := strings.ReplaceAll(line[1], "$$", "$") // systemd.service(5): a dollar sign
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "sleep"), []byte("#!/bin/sh\necho pause\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		code, status string
		pause        bool
	}{
		"error":   {"exited", "1", true},
		"stopped": {"exited", "0", false},
		"panic":   {"exited", "2", false},
		"kill -9": {"killed", "KILL", false},
		"SIGHUP":  {"killed", "1", false},
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script) //nolint:gosec // of the unit
		cmd.Env = []string{"PATH=" + bin, "EXIT_CODE=" + tt.code, "EXIT_STATUS=" + tt.status}
		if out, err := cmd.CombinedOutput(); err != nil || (string(out) == "pause\n") != tt.pause {
			t.Errorf("%s: %v: %q", name, err, out)
		}
	}
}
