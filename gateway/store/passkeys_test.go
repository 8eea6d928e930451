package store_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func passkey(person gateway.Principal, id string) gateway.Passkey {
	return gateway.Passkey{ID: []byte(id), Person: person, Address: "ann@example.org", Name: id, Created: time.Unix(7, 0).UTC(), Record: []byte(`{"n":1}`)}
}

func TestPasskeysAreOfOnePerson(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := open(t, path)
	keys := s.Passkeys()
	phone, laptop, others := passkey(1, "phone"), passkey(1, "laptop"), passkey(2, "bob's")
	for _, k := range []gateway.Passkey{phone, laptop, others} {
		gatewaytest.Must(t, keys.AddPasskey(t.Context(), k))
	}
	if err := keys.AddPasskey(t.Context(), passkey(2, "phone")); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("another person's ID: %v", err)
	}
	if err := keys.ChangePasskey(t.Context(), 2, phone.ID, func(*gateway.Passkey) error { return nil }); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("changed by another person: %v", err)
	}
	if err := keys.RemovePasskey(t.Context(), 2, phone.ID); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("removed by another person: %v", err)
	}
	gatewaytest.Must(t, keys.ChangePasskey(t.Context(), 1, laptop.ID, func(k *gateway.Passkey) error { k.Name, k.Person = "work", 2; return nil }))
	gatewaytest.Must(t, s.Close())
	s = open(t, path)
	keys = s.Passkeys()
	laptop.Name = "work"
	if got, err := keys.Passkeys(t.Context(), 1); err != nil || !cmp.Equal(got, []gateway.Passkey{phone, laptop}) {
		t.Errorf("after a restart: %v\n%s", err, cmp.Diff([]gateway.Passkey{phone, laptop}, got))
	}

	gatewaytest.Must(t, keys.RemovePasskey(t.Context(), 1, phone.ID))
	gatewaytest.Must(t, keys.AddPasskey(t.Context(), passkey(2, "phone"))) // free again
	gatewaytest.Must(t, keys.RemovePasskeys(t.Context(), 2))
	gatewaytest.Must(t, keys.RemovePasskeys(t.Context(), 2)) // a second time
	for person, want := range map[gateway.Principal]int{1: 1, 2: 0, 3: 0} {
		if got, err := keys.Passkeys(t.Context(), person); err != nil || len(got) != want {
			t.Errorf("person %d has %v, %v", person, got, err)
		}
	}
	gatewaytest.Must(t, keys.AddPasskey(t.Context(), others)) // that of a removed person
}

// However many are added at once, a person has at most 20, each counted change is kept, and one ID
// belongs to one person.
func TestPasskeysAtOnce(t *testing.T) {
	keys := open(t, filepath.Join(t.TempDir(), "lodge.db")).Passkeys()
	var added, claimed atomic.Int32
	var all sync.WaitGroup
	for i := range gateway.MaxPasskeys + 4 {
		all.Go(func() {
			switch err := keys.AddPasskey(t.Context(), passkey(1, fmt.Sprint(i))); gateway.KindOf(err) {
			case gateway.KindConflict:
			default:
				if err != nil {
					t.Error(err)
				}
				added.Add(1)
			}
		})
		all.Go(func() {
			if keys.AddPasskey(t.Context(), passkey(gateway.Principal(i+2), "same")) == nil {
				claimed.Add(1)
			}
		})
	}
	all.Wait()
	if added.Load() != gateway.MaxPasskeys || claimed.Load() != 1 {
		t.Errorf("%d added, %d have the same ID", added.Load(), claimed.Load())
	}
	mine, err := keys.Passkeys(t.Context(), 1)
	gatewaytest.Must(t, err)
	for range 10 {
		all.Go(func() {
			gatewaytest.Must(t, keys.ChangePasskey(t.Context(), 1, mine[0].ID, func(k *gateway.Passkey) error { k.Name += "x"; return nil }))
		})
	}
	all.Wait()
	if now, err := keys.Passkeys(t.Context(), 1); err != nil || now[0].Name != mine[0].Name+"xxxxxxxxxx" {
		t.Errorf("%q, %v", now[0].Name, err)
	}
	for name, k := range map[string]gateway.Passkey{"no ID": passkey(1, ""), "a long ID": passkey(1, string(make([]byte, 1024))), "nobody's": passkey(0, "x")} {
		if err := keys.AddPasskey(t.Context(), k); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
