package acme

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	wire "github.com/mholt/acmez/v3/acme"
)

// removeLimit is how long the removal of a TXT record may take.
const removeLimit = time.Minute

// Records changes the TXT records that prove a domain (RFC 8555 §8.4). Two records of one name must
// be able to exist side by side.
type Records interface {
	// Present adds a record. It returns when the authority can see it.
	Present(ctx context.Context, fqdn, value string) error
	// Remove removes a record. A missing one is no error.
	Remove(ctx context.Context, fqdn, value string) error
}

// solver makes an acmez.Solver of Records.
type solver struct {
	records  Records
	draining context.Context
}

// Present implements acmez.Solver.
func (s solver) Present(ctx context.Context, c wire.Challenge) error {
	return s.records.Present(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}

// CleanUp implements acmez.Solver.
func (s solver) CleanUp(ctx context.Context, c wire.Challenge) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit) // also after an order that took too long
	defer cancel()
	ctx, stop := whileOpen(ctx, s.draining, drainLimit)
	defer stop()
	return s.records.Remove(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}

// ChallengeConfig returns the configuration for a handshake by which the authority validates a name
// (TLS-ALPN-01, RFC 8737). It is nil for all others.
func (s *Source) ChallengeConfig(hello *tls.ClientHelloInfo) *tls.Config {
	if !slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol}) {
		return nil
	}
	if _, ok := certmagic.GetACMEChallenge(hello.ServerName); !ok {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, GetCertificate: s.web.GetCertificate}
}

// ServeChallenge answers a request by which the authority validates a name (HTTP-01, RFC 8555
// §8.3). It is false for all others, and then nothing is written.
func (s *Source) ServeChallenge(w http.ResponseWriter, r *http.Request) bool {
	if !certmagic.LooksLikeHTTPChallenge(r) {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	challenge, ok := certmagic.GetACMEChallenge(host)
	return ok && certmagic.SolveHTTPChallenge(s.log, w, r, challenge.Challenge)
}
