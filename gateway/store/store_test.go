package store_test

import (
	"bytes"
	"database/sql"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lodge/gateway"
	"lodge/gateway/store"
)

var guests = netip.MustParsePrefix("10.213.0.0/29") // six hosts, of which the second to the sixth are given out

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path, guests)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some tests close it earlier
	return s
}

func machine(name string) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Size: gateway.Size{Image: "debian-13"}, Desired: gateway.Running}
}

func TestVMsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%?.db")
	s := open(t, path)
	m, err := s.Create(t.Context(), machine("blog"))
	if err != nil {
		t.Fatal(err)
	}
	m.Shares = m.WithShare(gateway.Share{Port: 8080, Visibility: gateway.Public})
	m.Incarnation = 7
	if err := s.Save(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).VMs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]gateway.VM{m}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the state file is %v, %v; want mode 0600", info, err)
	}
}

func TestNumbersAreNeverUsedAgainAndAddressesRest(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
	first, err := s.Create(t.Context(), machine("blog"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	second, err := s.Create(t.Context(), machine("blog"))
	if err != nil {
		t.Fatal(err)
	}
	if second.Number <= first.Number {
		t.Errorf("number %d was given after %d", second.Number, first.Number)
	}
	if second.Addr == first.Addr {
		t.Errorf("address %s was given again at once", first.Addr)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
	if _, err := s.Create(t.Context(), machine("blog")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), machine("blog")); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("a second blog: %v", err)
	}
	for _, name := range []string{"b", "c", "d", "e"} {
		if _, err := s.Create(t.Context(), machine(name)); err != nil {
			t.Fatal(name, err)
		}
	}
	if _, err := s.Create(t.Context(), machine("f")); gateway.KindOf(err) != gateway.KindNoSpace {
		t.Errorf("a VM beyond the guest net: %v", err)
	}
}

func TestRemovedVMFreesItsName(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
	old, err := s.Create(t.Context(), machine("blog"))
	if err != nil {
		t.Fatal(err)
	}
	old.Desired = gateway.Removed
	if err := s.Save(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), machine("blog")); err != nil {
		t.Errorf("a new blog while the old one is being removed: %v", err)
	}
}

func TestBadFilesAreRefusedAndKept(t *testing.T) {
	newer := func(t *testing.T, path string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), `PRAGMA user_version = 99`); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write := func(content []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, spoil := range map[string]func(*testing.T, string){
		"from a newer Lodge": newer,
		"not a database":     write(bytes.Repeat([]byte("not a database. "), 300)),
		"truncated": func(t *testing.T, path string) {
			t.Helper()
			s := open(t, path)
			if err := s.KV().PutAll(t.Context(), map[string][]byte{"k": make([]byte, 100_000)}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 20_000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lodge.db")
			spoil(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Open(t.Context(), path, guests)
			e, ok := errors.AsType[*gateway.Error](err)
			if !ok || e.Hint == "" || e.Kind != gateway.KindInvalid {
				t.Errorf("opened with %v; want an error with a hint", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

func TestKV(t *testing.T) {
	kv := open(t, filepath.Join(t.TempDir(), "lodge.db")).KV()
	for _, key := range []string{"a/1", "a/2", "b%/1", "a_/3"} {
		if err := kv.PutAll(t.Context(), map[string][]byte{key: []byte(key)}); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := kv.List(t.Context(), "a/")
	if diff := cmp.Diff([]string{"a/1", "a/2"}, keys); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := kv.Delete(t.Context(), "a/1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := kv.Get(t.Context(), "a/1"); !errors.Is(err, fs.ErrNotExist) || gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a deleted key: %v", err)
	}
	one, err := kv.Secret(t.Context(), "s3")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := kv.Secret(t.Context(), "s3"); err != nil || again != one {
		t.Errorf("the secret changed: %v", err)
	}
}
