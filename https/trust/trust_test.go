package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/https/trust"
)

func newRoot(t *testing.T, isCA bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := big.NewInt(time.Now().UnixNano())
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Lodge test " + serial.String()}, NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// host has a system store, a home with a Firefox profile, and one where no browser was ever
// started.
func host(t *testing.T) trust.Stores {
	t.Helper()
	dir := t.TempDir()
	s := trust.Stores{
		SystemDir: filepath.Join(dir, "system"), Homes: []string{filepath.Join(dir, "ann"), filepath.Join(dir, "bob")},
		Update: []string{"sh", "-c", "echo updated >>" + filepath.Join(dir, "updates")},
	}
	profile := filepath.Join(s.Homes[0], ".mozilla/firefox/x1.default")
	for _, d := range []string{profile, s.Homes[1]} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "certutil", "-N", "--empty-password", "-d", "sql:"+profile).CombinedOutput(); err != nil {
		t.Fatalf("certutil (apt-get install libnss3-tools): %v: %s", err, out)
	}
	return s
}

func changes(t *testing.T, results []trust.Result, err error) map[string]bool {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, r := range results {
		if r.Hint != "" {
			t.Errorf("%s: %s", r.Store, r.Hint)
		}
		store, home, _ := strings.Cut(r.Store, " of ")
		all[strings.TrimSpace(store+" "+filepath.Base(home))] = r.Changed
	}
	return all
}

func TestInstallTwiceAndUninstall(t *testing.T) {
	s, root := host(t), newRoot(t, true)
	stores := func(changed bool) map[string]bool {
		return map[string]bool{"system .": changed, "Chromium ann": changed, "Chromium bob": changed, "Firefox ann": changed}
	}
	for step, want := range []bool{true, false} {
		results, err := s.Install(t.Context(), root)
		if diff := cmp.Diff(stores(want), changes(t, results, err)); diff != "" {
			t.Errorf("install %d: %s", step, diff)
		}
	}
	db := "sql:" + filepath.Join(s.Homes[1], ".pki/nssdb")
	if out, err := exec.CommandContext(t.Context(), "certutil", "-L", "-d", db).CombinedOutput(); err != nil || !strings.Contains(string(out), "C,,") { //nolint:gosec // the test's own
		t.Errorf("Chromium's database: %v: %s", err, out)
	}
	other, err := s.Install(t.Context(), newRoot(t, true)) // another host's root stands beside it
	if diff := cmp.Diff(stores(true), changes(t, other, err)); diff != "" {
		t.Error(diff)
	}
	for step, want := range []bool{true, false} {
		results, err := s.Uninstall(t.Context(), root)
		if diff := cmp.Diff(stores(want), changes(t, results, err)); diff != "" {
			t.Errorf("uninstall %d: %s", step, diff)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.SystemDir, "*.crt"))
	if err != nil || len(left) != 1 {
		t.Errorf("left in the system's store: %v %v", left, err)
	}
}

func TestMissingToolsAreNamed(t *testing.T) {
	s := host(t)
	s.Update = []string{"update-ca-certificates-is-not-here"}
	t.Setenv("PATH", t.TempDir())
	results, err := s.Install(t.Context(), newRoot(t, true))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Changed || !strings.Contains(r.Hint, "apt-get install") {
			t.Errorf("%+v", r)
		}
	}
	if len(results) != 4 {
		t.Errorf("%d results", len(results))
	}
}

func TestOnlyRootsAreInstalled(t *testing.T) {
	s := host(t)
	for name, content := range map[string][]byte{"empty": {}, "junk": []byte("junk"), "a leaf": newRoot(t, false)} {
		if _, err := s.Install(t.Context(), content); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
