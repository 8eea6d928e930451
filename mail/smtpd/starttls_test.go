package smtpd

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// certificate is one for mx.lodge.test, signed by itself.
func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	gatewaytest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.lodge.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	gatewaytest.Must(t, err)
	parsed, err := x509.ParseCertificate(der)
	gatewaytest.Must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, pool
}

func serveTLS(t *testing.T) (*host, *tls.Config) {
	t.Helper()
	config, pool := certificate(t)
	h := serve(t, func(c *Config) { c.TLS = config })
	return h, &tls.Config{RootCAs: pool, ServerName: "mx.lodge.test", MinVersion: tls.VersionTLS12}
}

// Mail comes in encrypted, and the Policy knows. State from before the handshake is void.
func TestStartTLS(t *testing.T) {
	h, trust := serveTLS(t)
	c := h.connect(t)
	c.want("220")
	c.send("EHLO x\r\n")
	if lines := c.lines(); !strings.Contains(lines, "STARTTLS") {
		t.Errorf("EHLO: %q", lines)
	}
	c.send(envelope + "STARTTLS x\r\n")
	c.want("250", "250", "501")
	c.send("STARTTLS\r\n")
	c.want("220 2.0.0")
	secure := tls.Client(c.Conn, trust)
	gatewaytest.Must(t, secure.HandshakeContext(t.Context()))
	e := &client{secure, t, bufio.NewReader(secure)}
	e.send("DATA\r\n")
	e.want("503")
	e.send("MAIL FROM:<a@b.c>\r\n")
	e.want("503 5.5.1 Send EHLO first")
	e.send("EHLO x\r\n")
	if lines := e.lines(); strings.Contains(lines, "STARTTLS") {
		t.Errorf("EHLO after the handshake: %q", lines)
	}
	e.send("STARTTLS\r\n")
	e.want("503")
	e.send(envelope + "DATA\r\n")
	e.want("250", "250", "354")
	e.send(strings.Repeat("x\r\n", 50_000) + ".\r\n")
	e.want("250")
	e.send("QUIT\r\n")
	e.want("221")
	e.ended()
	if all := h.all(); len(all) != 1 || len(all[0].Body) != 150_000 || !h.clients[0].TLS || h.clients[0].Protocol(false) != "ESMTPS" {
		t.Errorf("%d messages from %+v", len(all), h.clients)
	}
}

// lines reads a whole reply.
func (c *client) lines() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		gatewaytest.Must(c.t, err)
		if all.WriteString(line); line[3] != '-' {
			return all.String()
		}
	}
}

// Commands that somebody between has put behind STARTTLS are never run (CVE-2011-0411).
func TestStartTLSInjection(t *testing.T) {
	h, _ := serveTLS(t)
	c := h.dial(t)
	c.send("STARTTLS\r\n" + forged)
	if rest := c.ended(); !strings.HasPrefix(rest, "554 5.5.0") || strings.Contains(rest, "\r\n2") {
		t.Errorf("got %q", rest)
	}
	h.wantNothing(t)
}

// A handshake that fails, or is none, ends the session.
func TestStartTLSFails(t *testing.T) {
	h, _ := serveTLS(t)
	old := &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true} //nolint:gosec // that is the test
	for name, shake := range map[string]func(c net.Conn){
		"plain text":  func(c net.Conn) { _, _ = io.WriteString(c, forged) },
		"old version": func(c net.Conn) { _ = tls.Client(c, old).HandshakeContext(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			c.send("STARTTLS\r\n")
			c.want("220")
			shake(c.Conn)
			if rest := c.ended(); strings.Contains(rest, "250") {
				t.Errorf("got %q", rest)
			}
		})
	}
	h.wantNothing(t)
}
