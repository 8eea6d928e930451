package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func domains() []string { return []string{"lodge.localhost", "lodge.internal"} }

func TestRootIsMadeOnceAndConstrained(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := openRoot(dir, domains())
	if err != nil {
		t.Fatal(err)
	}
	again, err := openRoot(dir, domains())
	if err != nil || !again.cert.Equal(first.cert) || !again.key.Equal(first.key) {
		t.Fatalf("opened again: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, rootFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v %v", info.Mode(), err)
	}
	public, err := os.ReadFile(filepath.Join(dir, publicFile))
	if err != nil || string(public) != string(first.certPEM) || strings.Contains(string(public), "PRIVATE") {
		t.Errorf("the public file: %q %v", public, err)
	}
	c := first.cert
	if !c.IsCA || !c.MaxPathLenZero || !c.PermittedDNSDomainsCritical || !slices.Equal(c.PermittedDNSDomains, domains()) || len(c.ExcludedIPRanges) != 2 {
		t.Errorf("root: %+v", c)
	}
	if years := c.NotAfter.Sub(c.NotBefore).Hours() / 24 / 365; years < 9.9 || years > 10.1 {
		t.Errorf("valid for %.1f years", years)
	}
}

// TestRootCannotVouchForOtherNames signs other names with the root's key, and verifies with Go and
// OpenSSL.
func TestRootCannotVouchForOtherNames(t *testing.T) {
	r, err := openRoot(t.TempDir(), domains())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"blog.lodge.localhost": true, "lodge.localhost": true, "s3.lodge.internal": true,
		"example.org": false, "localhost": false, "evil-lodge.localhost": false, "lodge.internal.example.org": false, "127.0.0.1": false,
	} {
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // never fails
		leaf := &x509.Certificate{
			SerialNumber: newSerial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = []net.IP{ip}
		} else {
			leaf.DNSNames = []string{name}
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, r.cert, key.Public(), r.key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, _ := x509.ParseCertificate(der) // just made
		roots := x509.NewCertPool()
		roots.AddCert(r.cert)
		if _, err := parsed.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); (err == nil) != want {
			t.Errorf("Go, %s: %v, want %t", name, err, want)
		}
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "root"), r.certPEM, 0o600),
			os.WriteFile(filepath.Join(dir, "leaf"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-purpose", "sslserver", //nolint:gosec // the test's own files
			"-CAfile", filepath.Join(dir, "root"), filepath.Join(dir, "leaf")).CombinedOutput()
		if (err == nil) != want {
			t.Errorf("OpenSSL, %s: %v, want %t: %s", name, err, want, out)
		}
	}
}

func TestRootSurvivesKill(t *testing.T) {
	if dir := os.Getenv("LODGE_TEST_ROOT_DIR"); dir != "" { // the child: makes roots until it is killed
		for i := 0; ; i++ {
			if _, err := openRoot(filepath.Join(dir, strconv.Itoa(i)), domains()); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	for round := range 5 {
		part := filepath.Join(dir, strconv.Itoa(round))
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRootSurvivesKill$") //nolint:gosec // this program
		child.Env = append(os.Environ(), "LODGE_TEST_ROOT_DIR="+part)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		gatewaytest.WaitFor(t, "the condition", func() bool { // and then some, so that the kill meets it anywhere
			made, _ := filepath.Glob(filepath.Join(part, "*", rootFile)) // the pattern is well formed
			return len(made) > 3*round
		})
		_ = child.Process.Kill() // SIGKILL
		_ = child.Wait()         // it was killed
		made, _ := filepath.Glob(filepath.Join(part, "*"))
		if len(made) == 0 {
			t.Fatal("the child made nothing")
		}
		for _, one := range made {
			r, err := openRoot(one, domains())
			if err != nil {
				t.Fatalf("after the kill: %v", err)
			}
			if public, err := os.ReadFile(filepath.Join(one, publicFile)); err != nil || string(public) != string(r.certPEM) {
				t.Errorf("public file after the kill: %q %v", public, err)
			}
		}
	}
}

func TestBadRootIsRefusedWithAHint(t *testing.T) {
	whole, err := newRoot(domains(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newRoot(domains(), time.Now())                             // as above
	expired, _ := newRoot(domains(), time.Now().Add(-11*365*24*time.Hour)) // as above
	foreign, _ := newRoot([]string{"example.org"}, time.Now())             // as above
	cert, _ := pem.Decode(whole)                                           // as above
	_, otherKey := pem.Decode(other)                                       // as above
	swapped := append(pem.EncodeToMemory(cert), otherKey...)               // the key of another
	for name, content := range map[string][]byte{
		"empty": {}, "cut off": whole[:len(whole)/2], "no key": pem.EncodeToMemory(cert), "another's key": swapped,
		"expired": expired, "another domain": foreign, "junk": []byte("junk"),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, rootFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openRoot(dir, domains())
		e, ok := errors.AsType[*gateway.Error](err)
		if !ok || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
		// it was just written
		if left, _ := os.ReadFile(filepath.Join(dir, rootFile)); string(left) != string(content) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func open(t *testing.T, leafLife time.Duration) *Authority {
	t.Helper()
	a, err := Open(Config{Dir: t.TempDir(), Domains: domains(), LeafLife: leafLife})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLeafCoversItsSubjectAndTheNamesBelow(t *testing.T) {
	a := open(t, 0)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.RootPEM())
	for subject, names := range map[string]map[string]bool{
		"lodge.localhost":      {"lodge.localhost": true, "blog.lodge.localhost": true, "any.blog.lodge.localhost": false},
		"blog.lodge.localhost": {"blog.lodge.localhost": true, "any.blog.lodge.localhost": true, "shop.lodge.localhost": false},
		"s3.lodge.internal":    {"bucket.s3.lodge.internal": true},
		"example.org":          {"example.org": false},
	} {
		c, err := a.Certificate(subject)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range names {
			if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); (err == nil) != want {
				t.Errorf("%s with the leaf of %s: %v, want success %t", name, subject, err, want)
			}
		}
	}
}

func TestConcurrentHandshakesShareOneLeaf(t *testing.T) {
	a := open(t, 0)
	var asking sync.WaitGroup
	var leaves sync.Map
	for range 50 {
		asking.Go(func() {
			c, err := a.Certificate("blog.lodge.localhost")
			if err != nil {
				t.Error(err)
				return
			}
			leaves.Store(c, true)
		})
	}
	asking.Wait()
	count := 0
	leaves.Range(func(any, any) bool { count++; return true })
	if count != 1 {
		t.Errorf("%d leaves", count)
	}
}

func TestLeafIsReplacedBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, 3*time.Hour)
		first, err := a.Certificate("lodge.localhost")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // no time passes in a bubble
		if again, err := a.Certificate("lodge.localhost"); err != nil || again != first {
			t.Errorf("a leaf of three hours was replaced after one: %v", err)
		}
		time.Sleep(time.Hour + time.Second) //nolint:forbidigo // no time passes in a bubble
		if second, err := a.Certificate("lodge.localhost"); err != nil || second == first {
			t.Errorf("a leaf of three hours was not replaced in its last one: %v", err)
		}
	})
}

func TestNamesOfStrangersTakeBoundedMemory(t *testing.T) {
	a := open(t, 0)
	for i := range maxLeaves + 100 {
		if _, err := a.Certificate(strconv.Itoa(i) + ".lodge.localhost"); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.leaves) > maxLeaves {
		t.Errorf("%d leaves in memory", len(a.leaves))
	}
}
