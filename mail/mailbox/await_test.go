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
	all := func(b *Box) error { return b.Delivered(3) }
	for name, row := range map[string]struct {
		change func(b *Box) error     // before the store is closed
		after  func(log string) error // and behind that
		waits  bool
	}{
		"all delivered": {all, nil, true},
		"all removed":   {func(b *Box) error { return b.Expunge([]uint32{1, 2, 3}) }, nil, true},
		"one waits":     {func(b *Box) error { return b.Delivered(2) }, nil, false},
		"one is parked": {func(b *Box) error { return errors.Join(b.Park(1), b.Delivered(3)) }, nil, false},
		"no index":      {all, func(log string) error { return os.Remove(filepath.Join(log, indexName)) }, false},
		"index damaged": {all, func(log string) error {
			path := filepath.Join(log, indexName)
			buf, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			buf[len(buf)-1] ^= 1
			return os.WriteFile(path, buf, 0o600)
		}, false},
		"log goes on": {all, func(log string) error {
			f, err := os.OpenFile(glob(filepath.Join(log, "*.seg"))[0], os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("x")
			return errors.Join(err, f.Close())
		}, false},
		"another segment": {all, func(log string) error {
			return os.WriteFile(filepath.Join(log, segment{number: 2}.name()), nil, 0o600)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, vm := t.TempDir(), gateway.NewID()
			s := open(t, dir)
			mustPut(t, s, "x", vm, vm, vm)
			gatewaytest.Must(t, row.change(box(t, s, vm)))
			s.Close()
			if row.after != nil {
				gatewaytest.Must(t, row.after(filepath.Join(dir, vm.String(), "log")))
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
