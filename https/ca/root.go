package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	backdate = time.Hour // for clients whose clocks are slow

	rootFile   = "root.pem" // certificate and key, so that one rename replaces both; mode 0600
	publicFile = "root.crt" // the certificate alone, for curl --cacert; mode 0644
)

// root is the host's own certificate authority.
type root struct {
	cert     *x509.Certificate
	certPEM  []byte
	key      *ecdsa.PrivateKey
	leafLife time.Duration
}

func openRoot(dir string, domains []string) (*root, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // root.crt is for everyone
		return nil, fmt.Errorf("make directory: %w", err)
	}
	file := filepath.Join(dir, rootFile)
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if content, err = newRoot(domains, time.Now()); err == nil {
			err = durable.WriteFile(file, content, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open root certificate: %w", err)
	}
	r, err := parseRoot(content)
	if err != nil {
		return nil, gateway.Errorf(gateway.KindInternal, "the root certificate in %s is damaged", file).Because(err).
			WithHint("Restore the file, or move it away: the next start makes a new root, which lodge trust installs.")
	}
	if err := r.check(file, domains); err != nil {
		return nil, err
	}
	return r, r.publish(filepath.Join(dir, publicFile))
}

// newRoot makes a root for domains, as the PEM of its certificate and its key.
func newRoot(domains []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial := newSerial()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Organization: []string{"Lodge"},
			// NSS confuses roots of the same name
			CommonName: fmt.Sprintf("Lodge on %s (%s) %x", hostname(), domains[0], serial.FillBytes(make([]byte, 16))[:4]),
		},
		NotBefore:                   now.Add(-backdate),
		NotAfter:                    now.Add(rootLife),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         domains,
		ExcludedIPRanges:            []*net.IPNet{everyAddress(net.IPv4len), everyAddress(net.IPv6len)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}

// parseRoot reads what newRoot returned, and checks that key and certificate belong together.
func parseRoot(content []byte) (*root, error) {
	public, rest := pem.Decode(content)
	private, _ := pem.Decode(rest)
	if public == nil || private == nil || public.Type != "CERTIFICATE" || private.Type != "PRIVATE KEY" {
		return nil, errors.New("the file lacks a certificate followed by its key")
	}
	cert, err := x509.ParseCertificate(public.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("key and certificate do not belong together")
	}
	return &root{cert: cert, certPEM: pem.EncodeToMemory(public), key: key}, nil
}

func (r *root) check(file string, domains []string) error {
	if !slices.Equal(r.cert.PermittedDNSDomains, domains) {
		return gateway.Errorf(gateway.KindConflict, "the root certificate in %s is for %s, not for %s", file,
			strings.Join(r.cert.PermittedDNSDomains, " and "), strings.Join(domains, " and ")).
			WithHint("Restore the domain, or move the file away: the next start makes a new root, which lodge trust installs.")
	}
	if time.Now().After(r.cert.NotAfter) {
		return gateway.Errorf(gateway.KindConflict, "the root certificate in %s expired on %s", file, r.cert.NotAfter.Format(time.DateOnly)).
			WithHint("Move the file away: the next start makes a new root, which lodge trust installs.")
	}
	return nil
}

// publish writes the certificate to a file that everyone may read.
func (r *root) publish(file string) error {
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, r.certPEM) {
		return nil
	}
	return durable.WriteFile(file, r.certPEM, 0o644)
}

// issue makes a leaf for name and the names directly below it, with a key of its own.
func (r *root) issue(name string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{Organization: []string{"Lodge"}},
		DNSNames:     []string{name, "*." + name},
		NotBefore:    now.Add(-min(backdate, r.leafLife)),
		NotAfter:     now.Add(r.leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(r.cert.NotAfter) {
		template.NotAfter = r.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, r.cert, key.Public(), r.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func newSerial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (it aborts the program instead)
	b[0] &= 0x7f        // positive (RFC 5280 §4.1.2.2)
	return new(big.Int).SetBytes(b)
}

func everyAddress(bytes int) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, bytes), Mask: net.CIDRMask(0, 8*bytes)}
}

// hostname distinguishes the roots of several hosts in a browser's list.
func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "a host"
	}
	return name
}
