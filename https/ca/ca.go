// Package ca keeps the certificates that https serves: a root of this host's own, made at its first start, and leaves
// under it that certmagic obtains on demand, stores and renews.
//
// The root can only ever vouch for the names it was made for (name constraints, RFC 5280 §4.2.1.10), so trusting it costs
// a person nothing if its key leaks. A leaf for X is valid for X and *.X. That bounds how many there are: one for
// the domain, one for each VM, one for each inside name, whatever names strangers ask for.
//
// This package never opens a port, never speaks ACME and never asks the network.
package ca

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	"github.com/caddyserver/certmagic"

	"lodge/gateway"
)

// DefaultLeafLife is how long a leaf is valid. certmagic renews it when a third of that is left.
const DefaultLeafLife = 7 * 24 * time.Hour

// obtainLimit is how long a handshake may wait for a certificate: a signature and a few synced writes.
const obtainLimit = 5 * time.Second

// Config is what an Authority needs. All fields but LeafLife are required.
type Config struct {
	Dir      string                    // where the root lives
	Domains  []string                  // the root vouches for these and the names below them
	KV       KV                        // where the leaves live
	Allow    func(subject string) bool // whether there may be a leaf for a name now
	LeafLife time.Duration             // 0 means DefaultLeafLife
	Logger   *slog.Logger
}

// Authority gives out certificates during handshakes. It is safe for concurrent use.
type Authority struct {
	root    *root
	cache   *certmagic.Cache
	magic   *certmagic.Config
	storage *storage
}

// Open reads the root in cfg.Dir, or makes it. It fails with a *gateway.Error when the file is damaged, has expired or
// was made for other domains. Close the Authority when done.
func Open(cfg Config) (*Authority, error) {
	if cfg.LeafLife == 0 {
		cfg.LeafLife = DefaultLeafLife
	}
	root, err := openRoot(cfg.Dir, cfg.Domains)
	if err != nil {
		return nil, err
	}
	root.leafLife = cfg.LeafLife
	a := &Authority{root: root, storage: newStorage(cfg.KV)}
	log := bridge(cfg.Logger)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           log,
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		OnDemand: &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, subject string) error {
			if !cfg.Allow(subject) {
				return gateway.Errorf(gateway.KindNotFound, "there is no %q here", subject)
			}
			return nil
		}},
		Issuers:             []certmagic.Issuer{root},
		CertSelection:       exactly{},
		Storage:             a.storage,
		ReusePrivateKeys:    true, // key and certificate are two writes: with a new key, a crash between them would leave a pair that never fits
		DisableStorageCheck: true,
		DisableARI:          true,
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		Logger:              log,
	})
	return a, nil
}

// RootPEM is the root's certificate.
func (a *Authority) RootPEM() []byte { return a.root.certPEM }

// Certificate is the leaf for subject, obtained or renewed when it has to be. The name that the client asked for may be
// subject or any name directly below it.
func (a *Authority) Certificate(hello *tls.ClientHelloInfo, subject string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(hello.Context(), obtainLimit)
	defer cancel()
	as := *hello
	as.ServerName = subject
	as.SupportedProtos = nil // certmagic would look for an ACME challenge in it
	cert, err := a.magic.GetCertificateWithContext(ctx, &as)
	if err != nil {
		return nil, fmt.Errorf("get certificate for %s: %w", subject, err)
	}
	return cert, nil
}

// Forget deletes the leaf for subject and its key. A missing one is no error.
func (a *Authority) Forget(ctx context.Context, subject string) error {
	a.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: subject}})
	prefix := certmagic.StorageKeys.CertsSitePrefix(a.root.IssuerKey(), subject)
	if err := a.storage.Delete(ctx, prefix); err != nil {
		return fmt.Errorf("delete certificate of %s: %w", path.Base(prefix), err)
	}
	return nil
}

// Close stops the upkeep of certificates.
func (a *Authority) Close() { a.cache.Stop() }

// exactly selects the leaf that was made for a name, and never one that merely covers it: browsers put names with a
// common certificate on one connection, which would then be refused (RFC 9110 §15.5.20).
type exactly struct{}

var errNoLeaf = errors.New("no leaf for this name yet")

// SelectCertificate implements certmagic.CertificateSelector: the newest leaf of that name.
func (exactly) SelectCertificate(hello *tls.ClientHelloInfo, choices []certmagic.Certificate) (certmagic.Certificate, error) {
	var best certmagic.Certificate
	for _, c := range choices {
		if len(c.Names) == 0 || c.Names[0] != hello.ServerName || c.Leaf == nil {
			continue
		}
		if best.Leaf == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = c
		}
	}
	if best.Leaf == nil {
		return best, errNoLeaf
	}
	return best, nil
}
