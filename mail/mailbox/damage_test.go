package mailbox

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// log is a mailbox on disk with messages 0 to 5, of which 4 has its body in big and 5 is the last
// frame; a seventh was expunged.
type log struct {
	root, dir string // of the store, of the mailbox
	vm        gateway.ID
	ids       []string
	texts     []string
	places    []place
	next      uint32
	stale     []byte // an index from the beginning
}

func (l *log) index() string   { return filepath.Join(l.dir, "log", "index") }
func (l *log) big() string     { return filepath.Join(l.dir, "big", l.ids[4]) }
func (l *log) segment() string { return glob(filepath.Join(l.dir, "log", "0000000001-*.seg"))[0] }

func glob(pattern string) []string {
	names, _ := filepath.Glob(pattern) // the patterns are good
	return names
}

func newLog(t *testing.T) *log {
	t.Helper()
	l := &log{root: t.TempDir(), vm: gateway.NewID()}
	l.dir = filepath.Join(l.root, l.vm.String())
	s := open(t, l.root)
	b := box(t, s, l.vm)
	bodies := []string{"zero", "one", strings.Repeat("two\r\n", 2000), "three", strings.Repeat("4", maxInlineBytes+1), "five"}
	for i, body := range bodies {
		if i == 5 {
			mustPut(t, s, "expunged", l.vm)
			gatewaytest.Must(t, b.Expunge([]uint32{6}))
			gatewaytest.Must(t, b.SetFlags([]uint32{2}, Seen, 0))
			gatewaytest.Must(t, b.Delivered(1))
		}
		id := mustPut(t, s, body, l.vm)[0]
		e, err := b.Find(id)
		gatewaytest.Must(t, err)
		l.ids, l.texts, l.places = append(l.ids, id), append(l.texts, read(t, b, id)), append(l.places, e.at)
	}
	l.next = b.Snapshot().NextUID
	var err error
	l.stale, err = os.ReadFile(l.index())
	gatewaytest.Must(t, err)
	s.Close()
	return l
}

// edit changes a file.
func edit(path string, change func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(b), 0o600)
}

func flip(at int64) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 4; return b }
}

func cut(to int64) func([]byte) []byte { return func(b []byte) []byte { return b[:to] } }

func zero(from, to int64) func([]byte) []byte {
	return func(b []byte) []byte { clear(b[from:to]); return b }
}

// Damage costs only what it hit, and every message that it hit is reported. Each row is tried with the
// index as it is, and without, unless the index is all that can report it.
func TestDamage(t *testing.T) {
	type row struct {
		damage  func(l *log) error
		lost    []int
		indexed bool // only with the index
	}
	index := func(change func([]byte) []byte) row {
		return row{func(l *log) error { return edit(l.index(), change) }, nil, true}
	}
	segment := func(change func(l *log) func([]byte) []byte, lost ...int) row {
		return row{func(l *log) error { return edit(l.segment(), change(l)) }, lost, false}
	}
	big := func(change func([]byte) []byte) row {
		return row{func(l *log) error { return edit(l.big(), change) }, []int{4}, false}
	}
	remove := func(path func(*log) string) func(*log) error {
		return func(l *log) error { return os.Remove(path(l)) }
	}
	rows := map[string]row{
		"nothing":        {func(*log) error { return nil }, nil, false},
		"index missing":  {remove((*log).index), nil, true},
		"index empty":    index(cut(0)),
		"index cut":      index(func(b []byte) []byte { return b[:len(b)/2] }),
		"index zeroed":   index(func(b []byte) []byte { return make([]byte, len(b)) }),
		"index flipped":  index(func(b []byte) []byte { return flip(int64(len(b)) - 20)(b) }),
		"index stale":    {func(l *log) error { return os.WriteFile(l.index(), l.stale, 0o600) }, nil, true},
		"head flipped":   segment(func(*log) func([]byte) []byte { return flip(20) }),
		"marker flipped": segment(func(l *log) func([]byte) []byte { return flip(l.places[1].offset) }, 1),
		"length flipped": segment(func(l *log) func([]byte) []byte { return flip(l.places[1].offset + 30) }, 1),
		"meta flipped":   segment(func(l *log) func([]byte) []byte { return flip(l.places[2].offset + headBytes + 3) }, 2),
		"body flipped": segment(func(l *log) func([]byte) []byte {
			return flip(l.places[2].offset + int64(l.places[2].head) + 5000)
		}, 2),
		"range zeroed":    segment(func(l *log) func([]byte) []byte { return zero(l.places[1].offset+9, l.places[3].offset-5) }, 1, 2),
		"start zeroed":    segment(func(l *log) func([]byte) []byte { return zero(0, l.places[0].offset+5) }, 0),
		"last frame torn": segment(func(l *log) func([]byte) []byte { return cut(l.places[5].offset + l.places[5].length - 1) }, 5),
		"last head torn":  segment(func(l *log) func([]byte) []byte { return cut(l.places[5].offset + 3) }, 5),
		"rubbish behind":  segment(func(*log) func([]byte) []byte { return func(b []byte) []byte { return append(b, rand.Text()...) } }),
		"zeros behind": segment(func(*log) func([]byte) []byte {
			return func(b []byte) []byte { return append(b, make([]byte, 9999)...) }
		}),
		"last frame gone":   {func(l *log) error { return edit(l.segment(), cut(l.places[5].offset)) }, []int{5}, true},
		"segment empty":     {func(l *log) error { return edit(l.segment(), cut(0)) }, []int{0, 1, 2, 3, 4, 5}, true},
		"segment gone":      {remove((*log).segment), []int{0, 1, 2, 3, 4, 5}, true},
		"body gone":         {remove((*log).big), []int{4}, false},
		"body cut":          big(cut(1000)),
		"body longer":       big(func(b []byte) []byte { return append(b, 0) }),
		"long body flipped": big(flip(700_000)),
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			gatewaytest.Must(t, r.damage(l))
			unseen := []string{"nothing", "index missing", "index stale", "head flipped"}
			l.check(t, r.lost, !slices.Contains(unseen, name))
		})
		if r.indexed {
			continue
		}
		t.Run(name+", no index", func(t *testing.T) {
			l := newLog(t)
			gatewaytest.Must(t, r.damage(l))
			gatewaytest.Must(t, os.Remove(l.index()))
			l.check(t, r.lost, name != "nothing")
		})
	}
}

// check opens the mailbox three times. The same messages are lost each time, new ones come in with new
// UIDs, and a message that is not listed, though it was, left an ERROR.
func (l *log) check(t *testing.T, want []int, reported bool) {
	t.Helper()
	report := &gatewaytest.Log{}
	var added []string
	for round := range 3 {
		s, err := Open(l.root, report.Logger())
		gatewaytest.Must(t, err)
		b := box(t, s, l.vm)
		var lost []int
		for i, id := range l.ids {
			text, err := tryRead(b, id)
			if Damaged(err) {
				report.Logger().Error("damaged")
			}
			if text != l.texts[i] {
				lost = append(lost, i)
			}
		}
		if diff := cmp.Diff(want, lost); diff != "" {
			t.Errorf("round %d, lost: %s\n%s", round, diff, report)
		}
		if second, _ := b.Snapshot().Entries.Find(2); !slices.Contains(want, 1) && second.Flags != Seen {
			t.Errorf("round %d: flags are gone", round)
		}
		for i, id := range added {
			if text, err := tryRead(b, id); !strings.HasSuffix(text, fmt.Sprint("new ", i)) {
				t.Errorf("round %d: message %d is %q, %v", round, i, text, err)
			}
		}
		id := mustPut(t, s, fmt.Sprint("new ", round), l.vm)[0]
		if e, err := b.Find(id); err != nil || e.UID < l.next {
			t.Errorf("round %d: new UID %d, want at least %d", round, e.UID, l.next)
		}
		added = append(added, id)
		s.Close()
	}
	if got := report.Count("level=ERROR") > 0; got != reported {
		t.Errorf("reported: %v\n%s", got, report)
	}
}

func tryRead(b *Box, queueID string) (string, error) {
	e, err := b.Find(queueID)
	if err != nil {
		return "", err
	}
	c, err := b.Open(e.UID)
	if err != nil {
		return "", err
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	return string(text), err
}

// What the log cannot explain is moved, with all its bytes.
func TestLost(t *testing.T) {
	l := newLog(t)
	unreadable := []byte{}
	gatewaytest.Must(t, edit(l.segment(), func(b []byte) []byte {
		b[l.places[1].offset] ^= 1
		unreadable = bytes.Clone(b[l.places[1].offset:][:l.places[1].length])
		return b
	}))
	gatewaytest.Must(t, os.Remove(l.index()))
	for _, path := range []string{"big/stranger", "log/stranger"} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(l.dir, path), []byte(path), 0o600))
	}
	box(t, open(t, l.root), l.vm)
	found := map[string]bool{}
	for _, path := range glob(filepath.Join(l.dir, "lost", "*")) {
		b, err := os.ReadFile(path)
		gatewaytest.Must(t, err)
		found[string(b)] = true
	}
	want := map[string]bool{"big/stranger": true, "log/stranger": true, string(unreadable): true}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}

// Whatever a crash leaves of the last frame, the messages before it are there and new ones come in.
func TestTornTail(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	first := mustPut(t, s, "first", vm)[0]
	b := box(t, s, vm)
	keep := b.end
	second := mustPut(t, s, "second", vm)[0]
	s.Close()
	path := b.path(b.last())
	whole, err := os.ReadFile(path)
	gatewaytest.Must(t, err)
	check := func(name string, damaged []byte) {
		gatewaytest.Must(t, os.RemoveAll(filepath.Join(dir, vm.String())))
		gatewaytest.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		gatewaytest.Must(t, os.WriteFile(path, damaged, 0o600))
		s := open(t, dir)
		defer s.Close()
		b := box(t, s, vm)
		if got := read(t, b, first); !strings.HasSuffix(got, "first") {
			t.Fatalf("%s: first message is %q", name, got)
		}
		if text, err := tryRead(b, second); err == nil {
			t.Fatalf("%s: a torn message is there: %q", name, text)
		}
		third := mustPut(t, s, "third", vm)[0]
		if got := read(t, b, third); !strings.HasSuffix(got, "third") {
			t.Fatalf("%s: next message is %q", name, got)
		}
	}
	for cut := keep; cut < int64(len(whole)); cut += 3 {
		check(fmt.Sprint("cut at ", cut), whole[:cut])
	}
	for at := keep; at < int64(len(whole)); at += 7 {
		spoiled := bytes.Clone(whole)
		spoiled[at] ^= 0x15
		check(fmt.Sprint("spoiled at ", at), spoiled)
	}
}

// A segment is gone that had an expunge and a park: the index still has both.
func TestLostSegment(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := box(t, s, vm)
	b.segmentBytes = 1 << 10
	for range 3 {
		mustPut(t, s, strings.Repeat("x", 500), vm)
	}
	gatewaytest.Must(t, b.Park(1))
	gatewaytest.Must(t, b.Expunge([]uint32{2}))
	s.Close()
	segments := glob(filepath.Join(b.log, "*.seg"))
	if len(segments) < 2 {
		t.Fatalf("%d segments", len(segments))
	}
	gatewaytest.Must(t, os.Remove(segments[len(segments)-1]))
	s = open(t, dir)
	b = box(t, s, vm)
	for _, e := range b.Snapshot().Entries.All() {
		if e.UID == 2 || e.UID == 1 && e.Flags&parked == 0 {
			t.Errorf("%+v", e)
		}
	}
	if _, ok := b.Snapshot().Entries.Find(1); !ok {
		t.Error("the first message is gone")
	}
}

// Damage whose copy cannot be kept stays in its segment: the mailbox opens, what is intact is readable, and the next start
// keeps the copy.
func TestDamageNotCopied(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	first := mustPut(t, s, "first", vm)[0]
	b := box(t, s, vm)
	keep, path := b.end, b.path(b.last())
	mustPut(t, s, "second", vm)
	s.Close()
	gatewaytest.Must(t, os.Remove(filepath.Join(b.log, indexName)))
	whole, err := os.ReadFile(path)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(path, whole[:len(whole)-3], 0o600))
	lost := b.lost(fmt.Sprintf("%s@%d", filepath.Base(path), keep))
	gatewaytest.Must(t, os.MkdirAll(filepath.Join(lost, "in the way"), 0o700))
	for _, want := range []string{"first", "third"} {
		report := new(gatewaytest.Log)
		s, err = Open(dir, report.Logger())
		gatewaytest.Must(t, err)
		b = box(t, s, vm)
		if got := read(t, b, first); !strings.HasSuffix(got, want) {
			t.Errorf("an older message is %q", got)
		}
		third := mustPut(t, s, "third", vm)[0]
		if got := read(t, b, third); !strings.HasSuffix(got, "third") {
			t.Errorf("a new message is %q", got)
		}
		gatewaytest.Must(t, b.Expunge([]uint32{1})) // no message lives in the segment then
		b.tidy()
		if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, whole[:len(whole)-3]) {
			t.Errorf("the damaged segment has %d bytes, %v", len(kept), err)
		}
		if report.Count("damage of a mailbox not copied") != 1 {
			t.Errorf("not reported: %s", report)
		}
		first = third
		s.Close()
	}
	gatewaytest.Must(t, os.RemoveAll(lost))
	s = open(t, dir)
	b = box(t, s, vm)
	if kept, err := os.ReadFile(lost); err != nil || !bytes.Equal(kept, whole[keep:len(whole)-3]) {
		t.Errorf("the copy has %d bytes, %v", len(kept), err)
	}
	s.Close()
	if _, err := os.Stat(filepath.Join(b.log, indexName)); err != nil {
		t.Error(err)
	}
}

// A message whose frame is damaged does not keep its segment for ever: it moves to lost, the others to the tail.
func TestTidyDamagedFrame(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	report := new(gatewaytest.Log)
	s, err := Open(dir, report.Logger())
	gatewaytest.Must(t, err)
	defer s.Close()
	b := box(t, s, vm)
	b.segmentBytes = 16 << 10
	var ids []string
	for range 3 {
		ids = append(ids, mustPut(t, s, strings.Repeat("k", 5000), vm)[0])
	}
	bad, _ := b.Snapshot().Entries.Find(2)
	first := b.path(b.state.segment(bad.at.segment))
	f, err := os.OpenFile(first, os.O_WRONLY, 0)
	gatewaytest.Must(t, err)
	_, err = f.WriteAt([]byte("damage"), bad.at.offset)
	gatewaytest.Must(t, errors.Join(err, f.Close()))
	for i := range 60 {
		mustPut(t, s, strings.Repeat("x", 5000), vm)
		gatewaytest.Must(t, b.Expunge([]uint32{uint32(i) + 4}))
	}
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the segment is still there: %v", err)
	}
	if kept, err := os.ReadFile(b.lost(fmt.Sprintf("%s@%d", filepath.Base(first), bad.at.offset))); err != nil || int64(len(kept)) != bad.at.length || !strings.HasSuffix(string(kept), "kkk") {
		t.Errorf("%d bytes in lost, %v", len(kept), err)
	}
	for _, id := range []string{ids[0], ids[2]} {
		if got := read(t, b, id); !strings.HasSuffix(got, "kkk") {
			t.Errorf("message %s is %.40q", id, got)
		}
	}
	if _, err := b.Find(ids[1]); gateway.KindOf(err) != gateway.KindNotFound || report.Count("message damaged; moved to lost") != 1 {
		t.Errorf("the damaged one: %v, %s", err, report)
	}
}
