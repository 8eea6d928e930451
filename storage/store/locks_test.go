package store

import (
	"os"
	"runtime"
	"testing"

	"lodge/gateway"
)

// TestBadNamesInDeleteAll deletes names that no object has, one of them empty, beside a good one.
func TestBadNamesInDeleteAll(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, Key{blog, "box", "x"}, nil)
	done, err := s.DeleteAll(t.Context(), blog, "box", []Deletion{{}, {Name: "\x00"}, {Name: "x"}})
	must(t, err)
	for i, want := range []error{ErrName, ErrName, nil} {
		wantErr(t, done[i].Err, want)
	}
	_, err = s.Head(Key{blog, "box", "x"}, "")
	wantErr(t, err, ErrNoKey)
}

// TestForksLockInOneOrder lets a fork wait for the VM with the lower ID, into which it goes: it does not hold the
// source meanwhile, which a fork in the other direction would wait for.
func TestForksLockInOneOrder(t *testing.T) {
	s := open(t, t.TempDir())
	for _, vm := range []gateway.ID{blog, shop} {
		put(t, s, Key{vm, "box", "x"}, nil)
		mark(t, s, vm, "now")
	}
	first, err := s.account(blog)
	must(t, err)
	second, err := s.account(shop)
	must(t, err)
	first.commits.RLock()
	ended := make(chan error)
	go func() { ended <- s.Fork(shop, "now", blog) }()
	for first.commits.TryRLock() { // it fails when a writer waits
		first.commits.RUnlock()
		runtime.Gosched()
	}
	if second.commits.TryLock() {
		second.commits.Unlock()
	} else {
		t.Error("the fork holds the VM with the higher ID")
	}
	first.commits.RUnlock()
	wantErr(t, <-ended, ErrNotEmpty)
}

// TestSpareFilesOfAFailure lets the making of spare files fail half way: those that were made are removed.
func TestSpareFilesOfAFailure(t *testing.T) {
	s := open(t, t.TempDir())
	id, err := s.ids.take()
	must(t, err)
	inTheWay := s.blobs.newPath(id + spareFiles/2)
	must(t, os.WriteFile(inTheWay, nil, 0o600))
	_, err = s.blobs.take()
	wantErr(t, err, os.ErrExist)
	if left := files(t, s); len(left) != 1 {
		t.Errorf("left %v", left)
	}
	must(t, os.Remove(inTheWay))
	_, err = s.blobs.take()
	must(t, err)
}
