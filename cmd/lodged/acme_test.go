package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
	"lodge/https/acme"
)

func TestACMETable(t *testing.T) {
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "lodge.toml"), filepath.Join(dir, "secret")
	gatewaytest.Must(t, os.WriteFile(secret, []byte("c2VjcmV0\n"), 0o600))
	read := func(content string) (*acme.Config, *acme.Responder) {
		t.Helper()
		gatewaytest.Must(t, os.WriteFile(file, []byte(content), 0o600))
		cfg, _, err := readConfig([]string{"-config", file}, &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		source, responder, err := cfg.ACME.source(cfg.Domain, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return source, responder
	}
	if source, responder := read(""); source != nil || responder != nil {
		t.Errorf("without a table: %+v", source)
	}
	begin := "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\n"
	source, _ := read(begin + "challenge = \"http\"\nprofile = \"shortlived\"\nari = false")
	if source.Records != nil || source.Directory != acme.DefaultDirectory || source.Profile != "shortlived" || !source.NoARI {
		t.Errorf("http: %+v", source)
	}
	source, _ = read(begin + "challenge = \"rfc2136\"\n[acme.rfc2136]\nserver = \"192.0.2.1\"\nkey = \"lodge\"\nwait = \"20s\"\nsecret_file = \"" + secret + "\"")
	want := acme.RFC2136{Server: "192.0.2.1:53", Key: "lodge", Algorithm: "hmac-sha256", Secret: "c2VjcmV0", Wait: 20 * time.Second}
	if got := source.Records.(*acme.RFC2136); *got != want {
		t.Errorf("rfc2136: %+v", got)
	}
	source, _ = read(begin + "challenge = \"exec\"\nexec.program = \"/bin/hook\"\neab_key_id = \"x\"\neab_key_file = \"" + secret + "\"")
	if got := source.Records.(*acme.Hook); got.Program != "/bin/hook" || source.KeyID != "x" || source.MACKey != "c2VjcmV0" {
		t.Errorf("exec: %+v", source)
	}
	if source, responder := read(begin + "challenge = \"responder\""); responder == nil || source.Records != responder {
		t.Errorf("responder: %+v", source)
	}
}
