package store_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func webSession(person gateway.Principal, id byte, seen time.Time) gateway.WebSession {
	return gateway.WebSession{
		ID: [32]byte{id, 1}, Person: person, Address: "ann@example.org", Created: seen, Seen: seen, Until: seen.Add(time.Hour),
		Browser: "Firefox on Linux", From: "203.0.113.7", Way: "passkey",
	}
}

func TestWebSessions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := open(t, path)
	now := time.Now().UTC().Round(0)
	old, fresh, others := webSession(1, 1, now.Add(-time.Minute)), webSession(1, 2, now), webSession(11, 3, now)
	ended := webSession(1, 4, now.Add(-2*time.Hour))
	for _, w := range []gateway.WebSession{old, ended, fresh, others} {
		put(t)(s.WebSessions().AddWebSession(t.Context(), w))
	}
	gatewaytest.Must(t, s.Close())
	s = open(t, path)
	w := s.WebSessions()
	if got, err := w.WebSessions(t.Context(), 1); err != nil || !cmp.Equal(got, []gateway.WebSession{fresh, old}) {
		t.Errorf("%v\n%s", err, cmp.Diff([]gateway.WebSession{fresh, old}, got))
	}
	for name, tt := range map[string]struct {
		person gateway.Principal
		id     [32]byte
	}{"ended": {1, ended.ID}, "another person's": {1, others.ID}, "with another person": {11, fresh.ID}, "none": {1, [32]byte{9}}} {
		if _, err := w.WebSession(t.Context(), tt.person, tt.id); gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	gatewaytest.Must(t, w.SeeWebSession(t.Context(), 1, old.ID, now.Add(time.Second), "203.0.113.8"))
	if got, err := w.WebSession(t.Context(), 1, old.ID); err != nil || got.From != "203.0.113.8" || !got.Seen.Equal(now.Add(time.Second)) {
		t.Errorf("%+v, %v", got, err)
	}
	removed, err := w.RemoveWebSessions(t.Context(), 1, func(s gateway.WebSession) bool { return s.ID == old.ID })
	if err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if err := w.SeeWebSession(t.Context(), 1, old.ID, now, ""); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a use after the end: %v", err)
	}
	if got, err := w.WebSessions(t.Context(), 1); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := w.WebSessions(t.Context(), 11); err != nil || len(got) != 1 {
		t.Errorf("another person: %v, %v", got, err)
	}
}

// A person has at most 50, the last used; a use that races with a removal brings nothing back.
func TestWebSessionsAreBounded(t *testing.T) {
	w := open(t, filepath.Join(t.TempDir(), "lodge.db")).WebSessions()
	now := time.Now()
	for i := range gateway.MaxWebSessions + 5 {
		displaced, err := w.AddWebSession(t.Context(), webSession(1, byte(i), now.Add(time.Duration(i)*time.Second)))
		if i < gateway.MaxWebSessions && len(displaced) > 0 || i >= gateway.MaxWebSessions && (len(displaced) != 1 || displaced[0].ID != [32]byte{byte(i - gateway.MaxWebSessions), 1}) {
			t.Errorf("session %d displaces %v", i, displaced)
		}
		gatewaytest.Must(t, err)
	}
	got, err := w.WebSessions(t.Context(), 1)
	if err != nil || len(got) != gateway.MaxWebSessions || got[len(got)-1].ID != [32]byte{5, 1} {
		t.Errorf("%d, %v", len(got), err)
	}
	var all sync.WaitGroup
	for _, s := range got[:10] {
		all.Go(func() {
			for range 5 {
				_ = w.SeeWebSession(t.Context(), 1, s.ID, now, "x") // removed at some time
			}
		})
	}
	_, err = w.RemoveWebSessions(t.Context(), 1, func(gateway.WebSession) bool { return true })
	gatewaytest.Must(t, err)
	all.Wait()
	if got, err := w.WebSessions(t.Context(), 1); err != nil || len(got) != 0 {
		t.Errorf("%d came back, %v", len(got), err)
	}
}
