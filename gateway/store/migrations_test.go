package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// firstSchema makes a file as the first Lodge left it.
func firstSchema(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lodge.db")
	db, err := sql.Open("sqlite", dsn(path))
	gatewaytest.Must(t, err)
	s := &Store{db: db}
	gatewaytest.Must(t, s.step(t.Context(), 1, migrations()[0]))
	for _, statement := range statements {
		_, err := db.ExecContext(t.Context(), statement)
		gatewaytest.Must(t, err)
	}
	gatewaytest.Must(t, db.Close())
	return path
}

func migrated(t *testing.T, statements ...string) *Store {
	t.Helper()
	s, err := Open(t.Context(), firstSchema(t, statements...), netip.MustParsePrefix("10.213.0.0/24"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, s.Close()) })
	return s
}

func TestMigrateKV(t *testing.T) {
	kv := migrated(t,
		`INSERT INTO kv VALUES ('https/ü.crt', x'00ff0a', 1790000000123456789), ('https/empty', x'', 0)`,
		`INSERT INTO kv VALUES ('secret/s3', x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 1)`,
	).KV()
	for key, want := range map[string]struct {
		value string
		at    time.Time
	}{"https/ü.crt": {"\x00\xff\n", time.Unix(0, 1790000000123456789)}, "https/empty": {"", time.Unix(0, 0)}} {
		if value, at, err := kv.Get(t.Context(), key); err != nil || string(value) != want.value || !at.Equal(want.at) {
			t.Errorf("%s: %q of %s, %v; want %q of %s", key, value, at, err, want.value, want.at)
		}
	}
	if secret, err := kv.Secret(t.Context(), "s3"); err != nil || secret[0] != 0 || secret[31] != 0x1f {
		t.Errorf("the secret became %x, %v", secret, err)
	}
}

// A Watch cannot begin before a migration: it made no changes that are kept.
func TestMigrationIsCompacted(t *testing.T) {
	s := migrated(t, `INSERT INTO kv VALUES ('a', x'00', 0)`).Shared()
	entries, rev, err := s.List(t.Context(), "")
	if err != nil || len(entries) == 0 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, err := range s.Watch(t.Context(), "", rev-1) {
		if !errors.Is(err, gateway.ErrCompacted) {
			t.Errorf("watch: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for event, err := range s.Watch(ctx, "", rev) {
		if err == nil {
			t.Errorf("watch after the migration: %v", event)
		}
	}
}

// Sessions from before there were people end, and nothing else does.
func TestMigrateTokens(t *testing.T) {
	s := migrated(t, `INSERT INTO kv VALUES ('token', x'00', 0)`, `INSERT INTO tokens VALUES
		('session', x'`+strings.Repeat("ab", 32)+`', x'0123456789ab4def8123456789abcdef', '{"a":"\"ü"}', 2000000000)`)
	all, _, err := s.Shared().List(t.Context(), "")
	if err != nil || len(all) != 1 || all[0].Key != "kv/token" {
		t.Errorf("what is left: %v, %v", all, err)
	}
}

func TestMigrateVMs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const id = "01234567-89ab-4def-8123-456789abcde" // and one digit
		row := func(number, name, addr, removed string) string {
			return fmt.Sprintf(`INSERT INTO machines VALUES (%s, x'%s%s', '%s', '%s', %s, '{"id":"%s%s","number":%s,"name":"%s","addr":"%s"}')`,
				number, strings.ReplaceAll(id, "-", ""), number, name, addr, removed, id, number, number, name, addr)
		}
		s := migrated(t, row("1", "blog", "10.213.0.2", "1"), row("5", "blog", "10.213.0.4", "0"), row("9", "old", "10.213.0.6", "0"),
			`DELETE FROM machines WHERE number = 9`, `INSERT INTO resting VALUES ('10.213.0.3', 1790000000), ('10.213.0.6', 2000000000)`)
		claimed(t, s, "name/blog", "addr/10.213.0.2", "addr/10.213.0.3*", "addr/10.213.0.4", "addr/10.213.0.6*")
		if all, err := s.VMs(t.Context()); err != nil || len(all) != 2 || all[1].ID.String() != id+"5" {
			t.Errorf("the VMs became %v, %v", all, err)
		}
		if _, err := s.Create(t.Context(), named("blog")); gateway.KindOf(err) != gateway.KindTaken {
			t.Errorf("a second blog: %v", err)
		}
		next, err := s.Create(t.Context(), named("web"))
		if err != nil || next.Number != 10 || next.Addr != netip.MustParseAddr("10.213.0.5") {
			t.Errorf("the next VM: %v, %v", next.Identity, err)
		}
		<-time.After(AddressRest + time.Second)
		claimed(t, s, "name/blog", "name/web", "addr/10.213.0.2", "addr/10.213.0.4", "addr/10.213.0.5")
	})
}

// A file that no VM was made in, and one where the last VM is gone.
func TestMigrateNumbers(t *testing.T) {
	for want, statements := range map[uint32][]string{1: nil, 8: {
		`INSERT INTO machines VALUES (7, x'00', 'a', '10.213.0.2', 0, '')`, `DELETE FROM machines`,
	}} {
		if vm, err := migrated(t, statements...).Create(t.Context(), named("blog")); err != nil || vm.Number != want {
			t.Errorf("number %d, %v; want %d", vm.Number, err, want)
		}
	}
}
