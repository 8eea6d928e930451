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
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/singleflight"

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
	allow   func(subject string) bool
	cache   *certmagic.Cache
	magic   *certmagic.Config
	storage *storage
	flight  singleflight.Group // a crowd at a new name gets one certificate
	issuing chan struct{}      // as many as may be obtained at a time
}

// maxIssuing is how many certificates are obtained at a time: each is a few synced writes.
const maxIssuing = 4

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
	root.leafLife, root.allow = cfg.LeafLife, cfg.Allow
	a := &Authority{root: root, allow: cfg.Allow, storage: newStorage(cfg.KV), issuing: make(chan struct{}, maxIssuing)}
	log := bridge(cfg.Logger)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           log,
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Issuers:             []certmagic.Issuer{root},
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

// Certificate is the leaf for subject, which serves subject and all names directly below it. It is loaded, obtained or
// renewed first when it has to be. Not by certmagic's own on-demand way: that retries for minutes while the handshake
// waits, and takes a certificate that merely covers the name.
func (a *Authority) Certificate(ctx context.Context, subject string) (*tls.Certificate, error) {
	if leaf, ok := a.cached(subject); ok {
		return leaf, nil
	}
	if !a.allow(subject) {
		return nil, noSubject(subject)
	}
	result := a.flight.DoChan(subject, func() (any, error) {
		return a.manage(context.WithoutCancel(ctx), subject)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, fmt.Errorf("get certificate for %s: %w", subject, r.Err)
		}
		return r.Val.(*tls.Certificate), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cached is the newest leaf of subject in memory that is still valid. One that merely covers subject will not do: browsers
// put names with a common certificate on one connection, which is then refused (RFC 9110 §15.5.20).
func (a *Authority) cached(subject string) (*tls.Certificate, bool) {
	var best *certmagic.Certificate
	for _, c := range a.cache.AllMatchingCertificates(subject) {
		if len(c.Names) > 0 && c.Names[0] == subject && !c.Expired() && (best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = &c
		}
	}
	if best == nil {
		return nil, false
	}
	return &best.Certificate, true
}

// manage makes certmagic load, obtain or renew the leaf, and keep it from then on.
func (a *Authority) manage(ctx context.Context, subject string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, obtainLimit)
	defer cancel()
	select {
	case a.issuing <- struct{}{}:
		defer func() { <-a.issuing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a.evict(subject) // what has expired while the host slept
	if err := a.magic.ManageSync(ctx, []string{subject}); err != nil {
		return nil, err
	}
	if leaf, ok := a.cached(subject); ok {
		return leaf, nil
	}
	return nil, errors.New("the certificate is not valid now")
}

func (a *Authority) evict(subject string) {
	a.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: subject}})
}

// Remove deletes the leaf for subject and its key. A missing one is no error.
func (a *Authority) Remove(ctx context.Context, subject string) error {
	a.evict(subject)
	if err := a.storage.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(a.root.IssuerKey(), subject)); err != nil {
		return fmt.Errorf("delete certificate of %s: %w", subject, err)
	}
	return nil
}

// Close stops the upkeep of certificates.
func (a *Authority) Close() { a.cache.Stop() }

func noSubject(subject string) error {
	return gateway.Errorf(gateway.KindNotFound, "there is no %q here", subject)
}
