package mail

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// certificate is one for names, signed by itself, and the file it is in.
func certificate(t *testing.T, names ...string) (config *tls.Config, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	gatewaytest.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	gatewaytest.Must(t, err)
	file = filepath.Join(t.TempDir(), "root.pem")
	write(t, file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, file
}

// Mail comes in encrypted from a real client, and its trace header records it.
func TestSwaksOverTLS(t *testing.T) {
	config, root := certificate(t, "blog."+domain)
	f := start(t, t.TempDir(), func(c *Config) { c.TLS = config })
	vm := f.add(t, "blog")
	host, port, _ := net.SplitHostPort(f.addr)
	out, err := exec.CommandContext(t.Context(), "swaks", "--server", host, "--port", port, "--helo", "client.example", "--tls",
		"--tls-sni", "blog."+domain, "--tls-verify", "--tls-ca-path", root, "--from", "a@example.com", "--to", "x@blog."+domain, "--timeout", "30").CombinedOutput()
	if err != nil {
		t.Fatalf("swaks: %v\n%s", err, out)
	}
	if got := string(f.read(t, vm, f.list(t, vm)[0].QueueID)); !strings.Contains(got, " with ESMTPS id ") {
		t.Errorf("got %q", got)
	}
}
