package store

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

var cuts = flag.Int("cuts", 4, "how often TestPowerCut cuts the power")

const cutWriters = 6

// TestPowerCut cuts the power at random moments under writers: what was not synced of the index and of the files is
// lost, wholly or in part, and renames that were not synced are undone. What was acknowledged is there, with its event,
// a call that was in progress is done or not done, and nothing is damaged.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	mem := vfs.NewCrashableMem()
	for at := dir; ; at = filepath.Dir(at) { // the directories themselves are older than any cut
		must(t, mem.MkdirAll(at, 0o700))
		if at == "/" {
			break
		}
	}
	syncDirs(t, mem, dir)
	c := &cutter{t: t, dir: dir, mem: mem, acked: map[string]string{}, unsure: map[string][]string{}}
	for i := range *cuts {
		c.life(uint64(i + 1))
		if t.Failed() {
			t.Fatalf("after cut %d", i+1)
		}
	}
	t.Logf("%d cuts, %d acknowledged calls, %d names", *cuts, c.calls, len(c.acked))
}

func syncDirs(t *testing.T, mem *vfs.MemFS, dir string) {
	t.Helper()
	for at := dir; ; at = filepath.Dir(at) {
		d, err := mem.OpenDir(at)
		must(t, err)
		must(t, errors.Join(d.Sync(), d.Close()))
		if at == "/" {
			return
		}
	}
}

// cutter is a machine whose power fails. acked has the ETag of each name's object, "" for none; unsure what a call that
// was in progress at the last cut would make of it.
type cutter struct {
	t      *testing.T
	dir    string
	mem    *vfs.MemFS
	acked  map[string]string
	unsure map[string][]string
	events []string // ETags of what must have had an event
	calls  int

	mu  sync.Mutex
	cut bool

	synced sync.Map        // inodes of files
	left   map[string]bool // names of files that are kept as they are
}

func (c *cutter) open() *Store {
	c.t.Helper()
	s := open(c.t, c.dir, asked, func(cfg *Config) { cfg.fs, cfg.MinPart = c.mem, 1 })
	s.maxEvents = 1 << 20
	s.blobs.datasync = func(fd int) error {
		err := unix.Fdatasync(fd)
		var st unix.Stat_t
		if err == nil && unix.Fstat(fd, &st) == nil {
			c.synced.Store(st.Ino, true)
		}
		return err
	}
	return s
}

// life writes until a cut, and looks at what is left.
func (c *cutter) life(seed uint64) {
	c.t.Helper()
	s := c.open()
	c.cut = false
	random := rand.New(rand.NewPCG(seed, uint64(time.Now().UnixNano()))) // nothing depends on which moments these are
	var writers sync.WaitGroup
	for w := range cutWriters {
		r := rand.New(rand.NewPCG(seed, uint64(w)))
		writers.Go(func() {
			for c.write(s, w, r) {
				continue
			}
		})
	}
	enough := make(chan struct{})
	time.AfterFunc(time.Duration(50+random.IntN(300))*time.Millisecond, func() { close(enough) })
	<-enough
	left := c.cutNow(random)
	writers.Wait()
	must(c.t, s.Close())
	must(c.t, os.RemoveAll(filepath.Join(c.dir, "blobs")))
	must(c.t, os.Rename(left, filepath.Join(c.dir, "blobs")))
	c.compare()
}

// cutNow keeps what a cut would leave of the index, and returns a directory with what it would leave of the files.
func (c *cutter) cutNow(random *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := c.t.TempDir()
	must(c.t, os.MkdirAll(filepath.Join(left, "new"), 0o700))
	c.left = map[string]bool{}
	c.keep(left, random) // before and after: a file is removed only after its commit, and committed only after its sync
	c.cut = true
	c.mem = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
	c.keep(left, random)
	return left
}

// keep adds files that are there to what is left. Of one that is not synced only its name is sure.
func (c *cutter) keep(left string, random *rand.Rand) {
	from := filepath.Join(c.dir, "blobs")
	one := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // it was removed meanwhile
		}
		inNew := filepath.Join(left, "new", d.Name())
		below, _ := filepath.Rel(from, path)
		inPlace := filepath.Join(left, below)
		info, err := d.Info()
		if err != nil || c.left[d.Name()] {
			return nil //nolint:nilerr // as above
		}
		if !c.isSynced(info) {
			return os.WriteFile(inNew, make([]byte, random.IntN(100_000)), 0o600)
		}
		if random.IntN(2) == 0 { // the rename is not synced
			inPlace = inNew
		}
		must(c.t, os.MkdirAll(filepath.Dir(inPlace), 0o700))
		linked := filepath.Join(c.dir, "linked")
		if err := os.Link(path, linked); err != nil {
			return nil //nolint:nilerr // as above
		}
		_ = os.Remove(inNew) // what it was before its sync
		c.left[d.Name()] = true
		return os.Rename(linked, inPlace)
	}
	// Files move out of new, so whatever is missed there is found in its place.
	must(c.t, errors.Join(filepath.WalkDir(filepath.Join(from, "new"), one), filepath.WalkDir(from, one)))
}

func (c *cutter) isSynced(info fs.FileInfo) bool {
	_, ok := c.synced.Load(info.Sys().(*syscall.Stat_t).Ino)
	return ok
}

// write makes one call, until the cut.
func (c *cutter) write(s *Store, writer int, r *rand.Rand) bool {
	name := fmt.Sprint(writer, "-", r.IntN(8))
	key := Key{blog, "box", name}
	body := bytes.Repeat([]byte{byte(r.Uint32())}, []int{0, 100, 40_000, 2_000_000}[r.IntN(4)])
	body = fmt.Appendf(body, "%d %d", writer, r.Uint64())
	etag := func(o Object, err error) (string, error) { return o.ETag, err }
	var made string
	var err error
	switch r.IntN(5) {
	case 0:
		_, err = s.Delete(context.Background(), key, "", Condition{}, false)
	case 1:
		made, err = c.upload(s, key, body)
	default:
		made, err = etag(s.Put(context.Background(), key, Write{Body: bytes.NewReader(body), Size: -1}))
	}
	if errors.Is(err, ErrNoBucket) {
		err = nil // nothing to delete
	}
	must(c.t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		c.unsure[name] = append(c.unsure[name], made)
		return false
	}
	c.calls++
	c.acked[name] = made
	if made != "" {
		c.events = append(c.events, made)
	}
	return true
}

func (c *cutter) upload(s *Store, key Key, body []byte) (string, error) {
	u, err := s.NewUpload(key, UploadOptions{})
	if err != nil {
		return "", err
	}
	var listed []CompletedPart
	for i, half := range [][]byte{body[:len(body)/2], body[len(body)/2:]} {
		p, err := s.PutPart(context.Background(), key, u.ID, i+1, Write{Body: bytes.NewReader(half), Size: -1})
		if err != nil {
			return "", err
		}
		listed = append(listed, CompletedPart{Number: i + 1, ETag: p.ETag})
	}
	o, err := s.Complete(context.Background(), key, u.ID, listed, Completion{})
	return o.ETag, err
}

// compare looks at all names after a cut.
func (c *cutter) compare() {
	c.t.Helper()
	s := c.open()
	for name, want := range c.acked {
		got, err := c.etagOf(s, name)
		if err != nil || got != want && !slices.Contains(c.unsure[name], got) {
			c.t.Errorf("%s is %q, %v; want %q or one of %q", name, got, err, want, c.unsure[name])
		}
		c.acked[name] = got
	}
	for name := range c.unsure {
		if _, ok := c.acked[name]; !ok {
			got, err := c.etagOf(s, name)
			must(c.t, err)
			c.acked[name] = got
		}
	}
	clear(c.unsure)
	page, err := s.Events(blog, 0, 1<<20)
	must(c.t, err)
	seen := map[string]bool{}
	for _, e := range page.Events {
		seen[e.ETag] = true
	}
	for _, etag := range c.events {
		if !seen[etag] {
			c.t.Errorf("no event of %s", etag)
		}
	}
	for _, found := range checked(c.t, s) {
		if found.Bucket != "" || !strings.Contains(found.Err.Error(), "no record has this file") { // its removal is not synced
			c.t.Errorf("damage: %v", found)
		}
	}
	must(c.t, s.Close())
}

// etagOf reads an object to its end, and returns its ETag; "" if there is none.
func (c *cutter) etagOf(s *Store, name string) (string, error) {
	body, err := s.Get(Key{blog, "box", name}, "")
	if errors.Is(err, ErrNoKey) || errors.Is(err, ErrNoBucket) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, body)
	return body.ETag, errors.Join(err, body.Close())
}

// TestBlobSyncFails: a body whose fdatasync fails is refused and leaves nothing, what was there stays, and other writes
// go on.
func TestBlobSyncFails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	key := func(i int) Key { return Key{blog, "box", fmt.Sprint(i)} }
	for i := range 8 {
		put(t, s, key(i), random(1, 2*maxSmall))
	}
	var calls atomic.Int64
	s.blobs.datasync = func(fd int) error {
		if calls.Add(1)%3 == 0 {
			return syscall.EIO
		}
		return unix.Fdatasync(fd)
	}
	var writers sync.WaitGroup
	var refused atomic.Int64
	for i := range 8 {
		writers.Go(func() {
			last := uint64(1)
			for n := range uint64(10) {
				_, err := s.Put(t.Context(), key(i), Write{Body: bytes.NewReader(random(n+2, 2*maxSmall)), Size: -1})
				switch {
				case err == nil:
					last = n + 2
				case errors.Is(err, syscall.EIO):
					refused.Add(1)
				default:
					t.Error(err)
				}
				wantBody(t, s, key(i), "", random(last, 2*maxSmall))
			}
		})
	}
	writers.Wait()
	if n := refused.Load(); n < 20 || n > 30 {
		t.Errorf("%d of 80 writes were refused", n)
	}
	if n := len(files(t, s)); n != 8 {
		t.Errorf("%d files for 8 objects", n)
	}
	must(t, s.Close())
	if found := checked(t, open(t, dir)); len(found) > 0 {
		t.Error(found)
	}
}
