package store_test

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestTokenIsTakenOnce(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "lodge.db")).Logins()
	hash, vm, now := [32]byte{1}, gateway.NewID(), time.Now()
	if err := l.PutToken(t.Context(), "link", hash, vm, "ann@example.org", now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.LookToken(t.Context(), "session", hash, now); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a token of another kind: %v", err)
	}
	if got, data, err := l.LookToken(t.Context(), "link", hash, now); err != nil || got != vm || data != "ann@example.org" {
		t.Errorf("looked at %v %q %v", got, data, err)
	}
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, _, err := l.TakeToken(t.Context(), "link", hash, now); err == nil {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 1 {
		t.Errorf("taken %d times", taken.Load())
	}
}

func TestTokensEnd(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
	l, now := s.Logins(), time.Now()
	m, err := s.Create(t.Context(), machine("blog"))
	if err != nil {
		t.Fatal(err)
	}
	for i, expires := range []time.Time{now.Add(time.Second), now.Add(time.Hour)} {
		if err := l.PutToken(t.Context(), "session", [32]byte{byte(i)}, m.ID, "", expires); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := l.TakeToken(t.Context(), "session", [32]byte{0}, now.Add(2*time.Second)); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("an expired token: %v", err)
	}
	if err := s.Delete(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.LookToken(t.Context(), "session", [32]byte{1}, now); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a token of a VM that is gone: %v", err)
	}
}

func TestExpiredTokensAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
		l := s.Logins()
		for i := range 150 { // more than one Commit removes
			gatewaytest.Must(t, l.PutToken(t.Context(), "link", [32]byte{byte(i)}, gateway.NewID(), "", time.Now().Add(time.Minute)))
		}
		<-time.After(2 * time.Minute)
		gatewaytest.Must(t, l.PutToken(t.Context(), "link", [32]byte{255}, gateway.NewID(), "", time.Now().Add(time.Minute)))
		if left, _, err := s.Shared().List(t.Context(), ""); err != nil || len(left) != 1 {
			t.Errorf("%d keys are left, %v; want one", len(left), err)
		}
	})
}
