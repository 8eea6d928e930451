package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"lodge/gateway"
)

func TestFlagsBeatTheFileAndTheFileBeatsTheDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lodge.toml")
	content := "domain = \"vm.example.org\"\nhttps_port = 8443\nlisten = [\"127.0.0.1\", \"::1\"]\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig([]string{"-config", file, "-https_port", "9443"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Domain != "vm.example.org" || cfg.HTTPSPort != 9443 || cfg.SMTPPort != 25 || len(cfg.Listen) != 2 {
		t.Errorf("got %+v", cfg)
	}
	if cfg.GuestNet != netip.MustParsePrefix("10.213.0.0/16") {
		t.Errorf("guest net is %s", cfg.GuestNet)
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"unknown key":       "domian = \"x.example\"",
		"not TOML":          "domain = ",
		"port too large":    "https_port = 65536",
		"port zero":         "https_port = 0",
		"port below zero":   "smtp_port = -1",
		"guest net is IPv6": "guest_net = \"fd00::/64\"",
		"guest net tiny":    "guest_net = \"10.0.0.0/30\"",
		"accel":             "accel = \"fast\"",
		"wildcard address":  "listen = [\"0.0.0.0\"]",
		"no address":        "listen = []",
		"relative path":     "state_dir = \"lib\"",
		"domain one label":  "domain = \"localhost\"",
		"domain upper case": "domain = \"Lodge.localhost\"",
		"domain empty part": "domain = \"lodge..localhost\"",
		"internal domain":   "domain = \"lodge.internal\"",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "lodge.toml")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := readConfig([]string{"-config", file}, &bytes.Buffer{}); gateway.KindOf(err) != gateway.KindInvalid {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := readConfig([]string{"-config", "/nonexistent/lodge.toml"}, &bytes.Buffer{}); err == nil {
		t.Error("a file that was named and is missing was passed over")
	}
}

func TestOnlyOneDaemonPerStateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockState(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	held, err := listenTCP(t.Context(), loopback, 0)
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(held[0].Addr().String()).Port()
	_, err = listenTCP(t.Context(), loopback, int(port))
	if gateway.KindOf(err) != gateway.KindConflict || !bytes.Contains([]byte(err.Error()), []byte("lodged.test (process ")) {
		t.Errorf("got %v", err)
	}
}
