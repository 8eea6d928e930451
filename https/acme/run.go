package acme

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// How the wildcard is obtained, and how often certificates are removed whose names are gone.
const (
	wildcardLimit = 5 * time.Minute // one attempt; secondary name servers may be slow
	firstPause    = 10 * time.Second
	longestPause  = time.Hour
	sweepEvery    = time.Hour
)

// Run obtains the wildcard and removes certificates of names that are no longer allowed, until ctx
// ends. certmagic renews what was obtained.
func (s *Source) Run(ctx context.Context) error {
	var keeping sync.WaitGroup
	defer keeping.Wait()
	if s.dns != nil {
		keeping.Go(func() { s.obtainWildcard(ctx) })
	}
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		s.sweep(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// obtainWildcard obtains the certificates of the domain and of the names below it, one after the
// other, since their records have the same name. It tries until it has both.
func (s *Source) obtainWildcard(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := s.manage(ctx, s.wildcard())
		s.setTrouble(err)
		if err == nil {
			err = s.manage(ctx, s.Domain)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		s.Logger.Warn("wildcard certificate not obtained", "host", s.Domain, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Source) manage(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, wildcardLimit)
	defer cancel()
	return s.dns.ManageSync(ctx, []string{name})
}

func (s *Source) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err
}

// sweep removes the certificates of names that Owner no longer allows.
func (s *Source) sweep(ctx context.Context) {
	for _, name := range s.unowned() {
		s.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
		site := certmagic.StorageKeys.CertsSitePrefix(s.web.Issuers[0].IssuerKey(), name)
		if err := s.storage.Delete(ctx, site); err != nil && ctx.Err() == nil {
			s.Logger.Warn("certificate not removed", "host", name, "err", err)
			continue
		}
		s.mu.Lock()
		delete(s.owners, name)
		s.mu.Unlock()
	}
}

func (s *Source) unowned() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.owners {
		if _, ok := s.Owner(name); !ok {
			names = append(names, name)
		}
	}
	return names
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
