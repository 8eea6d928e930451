package mailbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Await opens a mailbox at once if a message may wait in it, and else when another opens it.
func TestAwait(t *testing.T) {
	for name, row := range map[string]struct {
		change func(t *testing.T, s *Store, b *Box) // before the store is closed
		after  func(t *testing.T, dir string)       // and behind that
		waits  bool
	}{
		"all delivered": {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Delivered(3)) }, nil, true},
		"all removed":   {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Expunge([]uint32{1, 2, 3})) }, nil, true},
		"one waits":     {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Delivered(2)) }, nil, false},
		"no index": {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Delivered(3)) },
			func(t *testing.T, dir string) { gatewaytest.Must(t, os.Remove(filepath.Join(dir, indexName))) }, false},
		"index damaged": {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Delivered(3)) }, func(t *testing.T, dir string) {
			path := filepath.Join(dir, indexName)
			buf, err := os.ReadFile(path)
			gatewaytest.Must(t, err)
			buf[len(buf)-1] ^= 1
			gatewaytest.Must(t, os.WriteFile(path, buf, 0o600))
		}, false},
		"log goes on": {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Delivered(3)) }, func(t *testing.T, dir string) {
			f, err := os.OpenFile(glob(filepath.Join(dir, "*.seg"))[0], os.O_APPEND|os.O_WRONLY, 0)
			gatewaytest.Must(t, err)
			_, err = f.Write([]byte("x"))
			gatewaytest.Must(t, errors.Join(err, f.Close()))
		}, false},
		"another segment": {func(t *testing.T, _ *Store, b *Box) { gatewaytest.Must(t, b.Delivered(3)) }, func(t *testing.T, dir string) {
			gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, segment{number: 2}.name()), nil, 0o600))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, vm := t.TempDir(), gateway.NewID()
			s := open(t, dir)
			mustPut(t, s, "x", vm, vm, vm)
			row.change(t, s, box(t, s, vm))
			s.Close()
			if row.after != nil {
				row.after(t, filepath.Join(dir, vm.String(), "log"))
			}
			synctest.Test(t, func(t *testing.T) {
				s := open(t, dir)
				got := make(chan *Box, 1)
				go func() {
					b, err := s.Await(t.Context(), vm)
					if err != nil {
						t.Error(err)
					}
					got <- b
				}()
				synctest.Wait()
				if waits := len(got) == 0; waits != row.waits {
					t.Fatalf("waits: %v, want %v", waits, row.waits)
				}
				mustPut(t, s, "new", vm)
				if b := <-got; b != box(t, s, vm) {
					t.Error("another mailbox")
				}
			})
		})
	}
}

// A VM that has got no mail yet has no mailbox.
func TestAwaitFirst(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, vm := open(t, dir), gateway.NewID()
		done := make(chan error, 1)
		go func() {
			_, err := s.Await(t.Context(), vm)
			done <- err
		}()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("it did not wait")
		}
		mustPut(t, s, "x", vm)
		gatewaytest.Must(t, <-done)
	})
}

// Who awaits a mailbox does so until its context ends.
func TestAwaitEnds(t *testing.T) {
	s, vm := open(t, t.TempDir()), gateway.NewID()
	box(t, s, vm)
	s.Close()
	s = open(t, s.dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Await(ctx, vm); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The index is written again as the log grows, so that the next start reads little of it, and is right.
func TestIndexAsTheLogGrows(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	mustPut(t, s, "x", vm)
	path := filepath.Join(dir, vm.String(), "log", indexName)
	first, err := os.ReadFile(path)
	gatewaytest.Must(t, err)
	body := string(make([]byte, 900_000))
	for range indexEvery/900_000 + 2 {
		mustPut(t, s, body, vm)
	}
	gatewaytest.Must(t, box(t, s, vm).SetFlags([]uint32{1}, Seen, 0)) // its batch comes after the index
	now, err := os.ReadFile(path)
	gatewaytest.Must(t, err)
	if slices.Equal(first, now) {
		t.Error("the index is as it was")
	}
	read, offset, err := readIndex(path)
	gatewaytest.Must(t, err)
	if n := read.list.Len(); n < 2 || offset < indexEvery {
		t.Errorf("the index has %d messages, up to %d", n, offset)
	}
}
