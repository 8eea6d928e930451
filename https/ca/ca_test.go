package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

func TestIssueRefusesOddRequests(t *testing.T) {
	r, err := openRoot(t.TempDir(), domains())
	if err != nil {
		t.Fatal(err)
	}
	r.leafLife, r.allow = time.Hour, func(string) bool { return true }
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // never fails
	for _, template := range []*x509.CertificateRequest{
		{},
		{DNSNames: []string{"a.lodge.localhost", "b.lodge.localhost"}},
		{IPAddresses: []net.IP{{127, 0, 0, 1}}},
		{DNSNames: []string{"a.lodge.localhost"}, EmailAddresses: []string{"a@b"}},
	} {
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		csr, _ := x509.ParseCertificateRequest(der) // just made
		if _, err := r.Issue(t.Context(), csr); err == nil {
			t.Errorf("issued for %+v", template)
		}
	}
}

func TestStorage(t *testing.T) {
	s := newStorage(&mapKV{})
	ctx := t.Context()
	for _, key := range []string{"a/b/one", "a/b/two", "a/three", "ab/four"} {
		if err := s.Store(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was loaded: %v", err)
	}
	for dir, want := range map[string][]string{"a": {"a/b", "a/three"}, "a/b": {"a/b/one", "a/b/two"}, "": {"a", "ab"}} {
		if got, err := s.List(ctx, dir, false); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("List %q: %v %v", dir, got, err)
		}
	}
	if got, err := s.List(ctx, "a", true); err != nil || cmp.Diff([]string{"a/b/one", "a/b/two", "a/three"}, got) != "" {
		t.Errorf("List of all below a: %v %v", got, err)
	}
	if _, err := s.List(ctx, "none", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of nothing: %v", err)
	}
	if info, err := s.Stat(ctx, "a/b"); err != nil || info.IsTerminal {
		t.Errorf("Stat of a directory: %+v %v", info, err)
	}
	if info, err := s.Stat(ctx, "a/three"); err != nil || !info.IsTerminal || info.Size != 7 || info.Modified.IsZero() {
		t.Errorf("Stat of a file: %+v %v", info, err)
	}
	if err := s.Delete(ctx, "a"); err != nil || s.Exists(ctx, "a/b/one") || s.Exists(ctx, "a") || !s.Exists(ctx, "ab/four") {
		t.Errorf("Delete of a directory: %v", err)
	}
	if err := s.Delete(ctx, "a"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func TestLocksExcludeAndHonourContexts(t *testing.T) {
	s := newStorage(&mapKV{})
	var held, count int
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for range 100 {
				if err := s.Lock(t.Context(), "x"); err != nil {
					t.Error(err)
				}
				if held++; held != 1 {
					t.Error("two hold the lock")
				}
				count++
				held--
				if err := s.Unlock(t.Context(), "x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	if count != 800 {
		t.Errorf("%d of 800", count)
	}
	if err := s.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Lock(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock: %v", err)
	}
}

// TestCrashBetweenTheWritesOfACertificate: certmagic stores key, certificate and metadata one after
// the other.
func TestCrashBetweenTheWritesOfACertificate(t *testing.T) {
	for stop := range 4 {
		kv := &mapKV{crash: true, writes: stop}
		dir := t.TempDir()
		cfg := Config{
			Dir: dir, Domains: domains(), KV: kv, Allow: func(string) bool { return true }, LeafLife: 3 * time.Second,
			Logger: slog.New(slog.DiscardHandler),
		}
		a, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_ = ask(short, a, "blog.lodge.localhost") // fails at the write where the crash is
		cancel()
		a.Close()
		kv.crash = false // the next start
		if a, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
		if err := ask(t.Context(), a, "blog.lodge.localhost"); err != nil {
			t.Errorf("crash after %d writes: %v", stop, err)
		}
		a.Close()
	}
}

// ask gets a certificate in a handshake.
func ask(ctx context.Context, a *Authority, subject string) error {
	client, server := net.Pipe()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer client.Close()
	asking.Go(func() {
		_ = tls.Client(client, &tls.Config{ServerName: subject, InsecureSkipVerify: true}).HandshakeContext(ctx) //nolint:gosec // the server side reports the error
	})
	return tls.Server(server, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { //nolint:gosec // a test
		return a.Certificate(h.Context(), subject)
	}}).HandshakeContext(ctx)
}

// mapKV is a KV that can stop writing.
type mapKV struct {
	mu     sync.Mutex
	all    map[string][]byte
	crash  bool // after writes
	writes int
}

func (kv *mapKV) Get(_ context.Context, key string) ([]byte, time.Time, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	value, ok := kv.all[key]
	if !ok {
		return nil, time.Time{}, gateway.Errorf(gateway.KindNotFound, "no key %q", key)
	}
	return value, time.Now(), nil
}

func (kv *mapKV) Put(_ context.Context, key string, value []byte) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if kv.crash && kv.writes == 0 {
		return errors.New("killed")
	}
	kv.writes--
	if kv.all == nil {
		kv.all = map[string][]byte{}
	}
	kv.all[key] = slices.Clone(value)
	return nil
}

func (kv *mapKV) Delete(_ context.Context, key string) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	delete(kv.all, key)
	return nil
}

func (kv *mapKV) List(_ context.Context, prefix string) ([]string, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	var keys []string
	for key := range kv.all {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}
