package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"lodge/gateway/durable"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

// TestListsAreOfOneMoment lists a bucket while it is restored to and fro, in small steps: no page has objects of both
// moments.
func TestListsAreOfOneMoment(t *testing.T) {
	s := open(t, t.TempDir())
	s.stepSize = 3
	const keys = 60
	generation := func(n int) {
		for i := range keys {
			put(t, s, Key{blog, "box", fmt.Sprintf("%02d", i)}, make([]byte, n))
		}
	}
	generation(1)
	mark(t, s, blog, "one")
	generation(2)
	mark(t, s, blog, "two")
	ended, listed, stop := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var restoring sync.WaitGroup
	restoring.Go(func() {
		defer close(ended)
		for i := range 60 {
			if err := s.Restore(blog, []string{"one", "two"}[i%2]); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-listed: // else most lists would wait
			case <-stop:
				return
			}
		}
	})
	defer restoring.Wait()
	defer close(stop)
	seen := map[int64]int{}
	for {
		select {
		case listed <- struct{}{}:
		case <-ended:
			if seen[1] == 0 || seen[2] == 0 {
				t.Errorf("pages by moment: %v", seen)
			}
			return
		default:
		}
		if size := listedSize(t, s, keys); size > 0 {
			seen[size]++
		}
	}
}

// listedSize lists a bucket whose objects all have one size, which it returns; 0 while it is refused.
func listedSize(t *testing.T, s *Store, keys int) int64 {
	t.Helper()
	p, err := s.List(t.Context(), Query{VM: blog, Bucket: "box"})
	if errors.Is(err, ErrUnfinished) {
		return 0
	}
	must(t, err)
	for _, o := range p.Objects {
		if len(p.Objects) != keys || o.Size != p.Objects[0].Size {
			t.Fatalf("%d objects; one has %d bytes, the first %d", len(p.Objects), o.Size, p.Objects[0].Size)
		}
	}
	u, err := s.UsageOf(t.Context(), blog, "box", "")
	if n := int64(keys); err == nil && u.Bytes != n && u.Bytes != 2*n {
		t.Fatalf("usage of two moments: %d", u.Bytes)
	}
	return p.Objects[0].Size
}

// TestRestoreIsTriedAgain lets the disk become full in the middle of a restore. The VM is refused until there is room, and
// then the restore is finished without its caller.
func TestRestoreIsTriedAgain(t *testing.T) {
	dir := sandboxtest.SmallDisk(t, 256<<20)
	s := open(t, filepath.Join(dir, "objects"))
	s.stepSize = 5
	const objects = 40
	key := func(i int) Key { return Key{blog, "box", fmt.Sprintf("%02d", i)} }
	for i := range objects {
		put(t, s, key(i), random(1, maxSmall+1))
	}
	mark(t, s, blog, "at")
	for i := range objects {
		put(t, s, key(i), random(2, maxSmall+1))
	}
	must(t, s.index.Flush()) // later it would give back room, or take it
	middle, err := s.find(key(objects/2), "")
	must(t, err)
	goOn := s.locks.lock(string(numKey(blog, kindGarbage, middle.content.id))) // the restore waits before it removes this body
	restored := make(chan error, 1)
	go func() { restored <- s.Restore(blog, "at") }()
	gatewaytest.WaitFor(t, "half of the restore", func() bool {
		marks, err := s.marks(blog, middle.content)
		return len(marks) > 0 && err == nil
	})
	filler := fillDisk(t, s, dir)
	goOn()
	wantErr(t, <-restored, ErrFull)
	wantErr(t, s.Readable(blog), ErrUnfinished)
	must(t, s.finish(t.Context())) // there is no room yet
	wantErr(t, s.Readable(blog), ErrUnfinished)
	must(t, os.Remove(filler))
	must(t, s.finish(t.Context()))
	must(t, s.Readable(blog))
	for i := range objects {
		wantBody(t, s, key(i), "", random(1, maxSmall+1))
	}
	put(t, s, key(0), []byte("new"))
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

// fillDisk leaves less room than the index must have.
func fillDisk(t *testing.T, s *Store, dir string) (filler string) {
	t.Helper()
	s.disk.gone.Store(true)
	must(t, os.Remove(s.disk.ballast()))
	filler = filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	for {
		free, _, err := durable.Free(dir)
		must(t, err)
		if free < lastReserve/2 {
			return filler
		}
		_, _ = f.Write(make([]byte, 256<<10)) // Free decides
	}
}
