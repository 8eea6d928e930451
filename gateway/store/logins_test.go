package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/store"
)

// secretKey is the n-th key of a kind.
func secretKey(kind string, n int) gateway.SecretKey {
	key := gateway.SecretKey{Kind: kind}
	binary.BigEndian.PutUint32(key.Hash[:], uint32(n)*0x9e3779b1) // spread, as hashes are
	return key
}

// put checks the error of a PutSecret or an AddWebSession.
func put(t *testing.T) func(displaced any, err error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		gatewaytest.Must(t, err)
	}
}

func TestSecretIsTakenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := open(t, path)
	l, now := s.Logins(), time.Now()
	key, want := secretKey("link", 1), gateway.Secret{VM: gateway.NewID(), Person: 7, Data: "data", Expires: time.Unix(now.Unix()+60, 0)}
	put(t)(l.PutSecret(t.Context(), key, want))
	gatewaytest.Must(t, s.Close())
	l = open(t, path).Logins() // it is kept
	if _, err := l.LookSecret(t.Context(), secretKey("session", 1), now); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a secret of another kind: %v", err)
	}
	if got, err := l.LookSecret(t.Context(), key, now); err != nil || got != want {
		t.Errorf("looked at %+v, %v", got, err)
	}
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got, err := l.ChangeSecret(t.Context(), key, now, nil); err == nil && got == want {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 1 {
		t.Errorf("taken %d times", taken.Load())
	}
}

func TestSecretIsChanged(t *testing.T) {
	l, now := open(t, filepath.Join(t.TempDir(), "lodge.db")).Logins(), time.Now()
	key := secretKey("share", 1)
	put(t)(l.PutSecret(t.Context(), key, gateway.Secret{Expires: now.Add(time.Hour)}))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := l.ChangeSecret(t.Context(), key, now, func(s *gateway.Secret) (bool, error) { s.Data += "x"; return true, nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	full := errors.New("used up")
	if _, err := l.ChangeSecret(t.Context(), key, now, func(*gateway.Secret) (bool, error) { return false, full }); !errors.Is(err, full) {
		t.Errorf("the error of a change: %v", err)
	}
	if got, err := l.LookSecret(t.Context(), key, now); err != nil || len(got.Data) != 20 {
		t.Errorf("after 20 changes: %q, %v", got.Data, err)
	}
}

func TestSecretsEnd(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
	l, now := s.Logins(), time.Now()
	m, err := s.Create(t.Context(), machine("blog"))
	gatewaytest.Must(t, err)
	for i, secret := range []gateway.Secret{
		{VM: m.ID, Expires: now.Add(time.Second)},
		{VM: m.ID, Expires: now.Add(time.Hour)},
		{Person: 7, Expires: now.Add(time.Hour)},
		{Person: 8, Expires: now.Add(time.Hour)},
	} {
		put(t)(l.PutSecret(t.Context(), secretKey("session", i), secret))
	}
	if _, err := l.ChangeSecret(t.Context(), secretKey("session", 0), now.Add(2*time.Second), nil); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("an expired secret: %v", err)
	}
	gatewaytest.Must(t, s.Delete(t.Context(), m.ID))
	gatewaytest.Must(t, l.RemoveSecrets(t.Context(), gateway.SecretsOf{Person: 7}))
	left, err := l.ListSecrets(t.Context(), gateway.SecretsOf{Kind: "session"}, now)
	if _, ok := left[secretKey("session", 3)]; err != nil || len(left) != 1 || !ok {
		t.Errorf("left: %v, %v", left, err)
	}
	if entries, _, err := s.Shared().List(t.Context(), "secret/"); err != nil || len(entries) != 1 {
		t.Errorf("in the file: %v, %v", entries, err)
	}
}

func TestExpiredSecretsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
		l := s.Logins()
		for i := range 150 { // more than one Commit removes
			put(t)(l.PutSecret(t.Context(), secretKey("link", i), gateway.Secret{VM: gateway.NewID(), Expires: time.Now().Add(time.Minute)}))
		}
		<-time.After(2 * time.Minute)
		put(t)(l.PutSecret(t.Context(), secretKey("link", 255), gateway.Secret{Expires: time.Now().Add(time.Minute)}))
		if left, _, err := s.Shared().List(t.Context(), ""); err != nil || len(left) != 1 {
			t.Errorf("%d keys are left, %v; want one", len(left), err)
		}
	})
}

// One person's sessions displace themselves, and no one else's.
func TestSecretsOfOnePersonMakeRoom(t *testing.T) {
	l, now := open(t, filepath.Join(t.TempDir(), "lodge.db")).Logins(), time.Now()
	vm := gateway.NewID()
	for i := range gateway.MaxSecretsOfPerson + 2 {
		want := gateway.Displaced{}
		if first := i - gateway.MaxSecretsOfPerson; first >= 0 {
			want = gateway.Displaced{Key: secretKey("session", first), VM: vm, Person: 7}
		}
		secret := gateway.Secret{VM: vm, Person: 7, Expires: now.Add(time.Hour + time.Duration(i)*time.Second)}
		if got, err := l.PutSecret(t.Context(), secretKey("session", i), secret); err != nil || got != want {
			t.Fatalf("session %d displaces %v, want %v; %v", i, got, want, err)
		}
	}
	put(t)(l.PutSecret(t.Context(), secretKey("session", -1), gateway.Secret{Person: 8, Expires: now.Add(time.Minute)}))
	put(t)(l.PutSecret(t.Context(), secretKey("login", -1), gateway.Secret{Person: 7, Expires: now.Add(time.Minute)}))
	put(t)(l.PutSecret(t.Context(), secretKey("session", 5), gateway.Secret{Person: 7, Expires: now.Add(time.Hour)})) // one that is there
	all, err := l.ListSecrets(t.Context(), gateway.SecretsOf{}, now)
	if err != nil || len(all) != gateway.MaxSecretsOfPerson+2 {
		t.Errorf("%d secrets, %v", len(all), err)
	}
	for i, want := range map[int]bool{0: false, 1: false, 2: true, 5: true, -1: true} {
		if _, ok := all[secretKey("session", i)]; ok != want {
			t.Errorf("session %d is there: %t", i, ok)
		}
	}
}

// brief is a file that holds nothing, and is fast.
type brief struct{ gateway.Shared }

func (brief) Commit(context.Context, []gateway.Cond, []gateway.Op) (gateway.Revision, error) {
	return 1, nil
}

func (brief) List(context.Context, string) ([]gateway.Entry, gateway.Revision, error) {
	return nil, 0, nil
}

// Guests with as many secrets of three kinds as they may have fill the store. Each new one, of theirs or of
// others, displaces one of the guest who has the most: nobody else loses any, and everybody can log in.
func TestFullStoreTakesFromWhoHasTheMost(t *testing.T) {
	const guests, own = 34, 10 // persons from 1; others have own each
	l := full(t, guests)
	left := func(person gateway.Principal) int { return len(l.Held(gateway.SecretsOf{Person: person})) }
	for i := range own {
		for owner := gateway.Principal(1000); owner < 1003; owner++ {
			put(t)(l.PutSecret(t.Context(), secretKey("session", -1-i-own*int(owner)), gateway.Secret{Person: owner, Expires: time.Now().Add(time.Minute)}))
		}
	}
	put(t)(l.PutSecret(t.Context(), secretKey("visit", -1), gateway.Secret{Person: 1, Expires: time.Now().Add(time.Hour)}))
	for owner := gateway.Principal(1000); owner < 1003; owner++ {
		if n := left(owner); n != own {
			t.Errorf("person %d has %d secrets, want %d", owner, n, own)
		}
	}
	least, most, all := gateway.MaxSecrets, 0, 0
	for guest := gateway.Principal(1); guest <= guests; guest++ {
		n := left(guest)
		least, most, all = min(least, n), max(most, n), all+n
	}
	if most-least > 2 || all != gateway.MaxSecrets-3*own {
		t.Errorf("guests have %d to %d secrets, %d in all", least, most, all)
	}
}

// full returns a store with gateway.MaxSecrets, of the same number or one less for each of the persons from 1 to n.
func full(t *testing.T, n int) *store.Logins {
	t.Helper()
	l, err := store.OpenLogins(t.Context(), brief{})
	gatewaytest.Must(t, err)
	later := time.Now().Add(time.Hour)
	for i := range gateway.MaxSecrets {
		kind := []string{"session", "seen", "handoff"}[i/n%3]
		put(t)(l.PutSecret(t.Context(), secretKey(kind, i), gateway.Secret{Person: gateway.Principal(1 + i%n), Expires: later}))
	}
	return l
}
