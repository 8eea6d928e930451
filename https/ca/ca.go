// Package ca makes the certificates of the host's own authority: its root, made at the first start,
// and leaves signed by it, made in memory during handshakes.
//
// Name constraints (RFC 5280 §4.2.1.10) limit the root to the names it was made for, so a leaked
// key endangers no other site. A leaf for X is valid for X and *.X.
//
// This package stores no leaf, never opens a port and never uses the network.
package ca

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// DefaultLeafLife is how long a leaf is valid. It is replaced when a third of that remains.
const DefaultLeafLife = 7 * 24 * time.Hour

// maxLeaves bounds the leaves in memory: strangers choose the names. One that was dropped is made
// again.
const maxLeaves = 1024

// Config is what an Authority needs. All fields but LeafLife are required.
type Config struct {
	Dir      string        // directory of the root
	Domains  []string      // names that the root may sign for, with all names below them
	LeafLife time.Duration // 0 means DefaultLeafLife
}

// Authority provides certificates during handshakes. It is safe for concurrent use.
type Authority struct {
	root   *root
	flight singleflight.Group // concurrent handshakes for a name share one leaf

	mu     sync.Mutex
	leaves map[string]*tls.Certificate // by subject
}

// Open reads the root in cfg.Dir, or makes it. The error is a *gateway.Error when the file is
// damaged, has expired or is for other domains.
func Open(cfg Config) (*Authority, error) {
	if cfg.LeafLife == 0 {
		cfg.LeafLife = DefaultLeafLife
	}
	root, err := openRoot(cfg.Dir, cfg.Domains)
	if err != nil {
		return nil, err
	}
	root.leafLife = cfg.LeafLife
	return &Authority{root: root, leaves: map[string]*tls.Certificate{}}, nil
}

// RootPEM returns the root's certificate.
func (a *Authority) RootPEM() []byte { return a.root.certPEM }

// Certificate returns the leaf for subject, which is valid for subject and all names directly below
// it. Clients accept it if subject is one of the domains, or below one.
func (a *Authority) Certificate(subject string) (*tls.Certificate, error) {
	now := time.Now()
	if leaf, ok := a.cached(subject, now); ok {
		return leaf, nil
	}
	made, err, _ := a.flight.Do(subject, func() (any, error) {
		if leaf, ok := a.cached(subject, now); ok {
			return leaf, nil
		}
		leaf, err := a.root.issue(subject, now)
		if err == nil {
			a.keep(subject, leaf)
		}
		return leaf, err
	})
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", subject, err)
	}
	return made.(*tls.Certificate), nil
}

func (a *Authority) cached(subject string, now time.Time) (*tls.Certificate, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	leaf, ok := a.leaves[subject]
	return leaf, ok && leaf.Leaf.NotAfter.Sub(now) > a.root.leafLife/3
}

// keep puts a leaf into the cache, in place of any other one when that is full.
func (a *Authority) keep(subject string, leaf *tls.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.leaves) >= maxLeaves {
		for other := range a.leaves {
			delete(a.leaves, other)
			break
		}
	}
	a.leaves[subject] = leaf
}
