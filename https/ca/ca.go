// Package ca keeps the certificates that https serves: the host's own root, made at the first
// start, and leaves signed by it, which certmagic obtains on demand, stores and renews.
//
// Name constraints (RFC 5280 §4.2.1.10) limit the root to the names it was made for, so a leaked
// key endangers no other site. A leaf for X is valid for X and *.X. That bounds the number of
// leaves: one for the domain, one for each VM and one for each inside name, whatever names clients
// request.
//
// This package never opens a port, never speaks ACME and never uses the network.
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

// DefaultLeafLife is how long a leaf is valid. certmagic renews it when a third of that remains.
const DefaultLeafLife = 7 * 24 * time.Hour

// obtainLimit is how long a handshake may wait for a certificate, which takes a signature and a few
// synced writes.
const obtainLimit = 5 * time.Second

// Config is what an Authority needs. All fields but LeafLife are required.
type Config struct {
	Dir      string                    // directory of the root
	Domains  []string                  // names that the root may sign for, with all names below them
	KV       KV                        // keeps the leaves
	Allow    func(subject string) bool // whether a name may have a leaf now
	LeafLife time.Duration             // 0 means DefaultLeafLife
	Logger   *slog.Logger
}

// Authority provides certificates during handshakes. It is safe for concurrent use.
type Authority struct {
	root    *root
	allow   func(subject string) bool
	cache   *certmagic.Cache
	magic   *certmagic.Config
	storage *storage
	flight  singleflight.Group // concurrent handshakes for a new name share one certificate
	issuing chan struct{}      // holds a place for each certificate being obtained
}

// maxIssuing is how many certificates are obtained at a time; each takes a few synced writes.
const maxIssuing = 4

// Open reads the root in cfg.Dir, or makes it. The error is a *gateway.Error when the file is
// damaged, has expired or is for other domains. Close the Authority when done.
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
		Issuers: []certmagic.Issuer{root},
		Storage: a.storage,
		// a crash between the writes of a new key and its certificate would leave a mismatched pair
		ReusePrivateKeys:    true,
		DisableStorageCheck: true,
		DisableARI:          true,
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		Logger:              log,
	})
	return a, nil
}

// RootPEM returns the root's certificate.
func (a *Authority) RootPEM() []byte { return a.root.certPEM }

// Certificate returns the leaf for subject, which is valid for subject and all names directly below
// it. It loads, obtains or renews the leaf first if needed. certmagic's own on-demand mode does not
// fit: it retries for minutes while the handshake waits, and accepts a certificate that merely
// covers the name.
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

// cached returns the newest valid leaf of subject in memory. A leaf that merely covers subject does
// not count: browsers reuse a connection for all names of its certificate, and those requests get
// 421 (RFC 9110 §15.5.20).
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

// manage lets certmagic load, obtain or renew the leaf, and renew it from then on.
func (a *Authority) manage(ctx context.Context, subject string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, obtainLimit)
	defer cancel()
	select {
	case a.issuing <- struct{}{}:
		defer func() { <-a.issuing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a.evict(subject) // it may have expired while the host was suspended
	if err := a.magic.ManageSync(ctx, []string{subject}); err != nil {
		return nil, err
	}
	if leaf, ok := a.cached(subject); ok {
		return leaf, nil
	}
	return nil, errors.New("the certificate is not valid at this time")
}

func (a *Authority) evict(subject string) {
	a.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: subject}})
}

// Remove removes the leaf for subject and its key. A missing leaf is no error.
func (a *Authority) Remove(ctx context.Context, subject string) error {
	a.evict(subject)
	if err := a.storage.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(a.root.IssuerKey(), subject)); err != nil {
		return fmt.Errorf("remove certificate of %s: %w", subject, err)
	}
	return nil
}

// Close stops the renewal of certificates.
func (a *Authority) Close() { a.cache.Stop() }

func noSubject(subject string) error {
	return gateway.Errorf(gateway.KindNotFound, "no name %q on this host", subject)
}
