package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// asked is a Rule that asks for all events of buckets.
func asked(c *Config) {
	c.Rule = func(*Bucket, string, string) (Rule, bool) { return Rule{"all", "target"}, true }
}

func remove(t *testing.T, s *Store, key Key) {
	t.Helper()
	_, err := s.Delete(t.Context(), key, "", Condition{}, false)
	must(t, err)
}

// wantEvents compares the names and keys of what waits.
func wantEvents(t *testing.T, s *Store, vm gateway.ID, want ...string) EventPage {
	t.Helper()
	page, err := s.Events(vm, 0, 1000)
	must(t, err)
	var got []string
	for _, e := range page.Events {
		got = append(got, e.What+" "+e.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	a, err := s.account(vm)
	must(t, err)
	counted := 0
	for _, n := range a.events {
		counted += n
	}
	if counted != len(want) {
		t.Errorf("%d events counted, want %d", counted, len(want))
	}
	return page
}

// Events wait over a restart, with what they are about; a write that fails has none.
func TestEventsStay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, asked)
	o := put(t, s, Key{blog, "box", "x"}, []byte("hello"))
	remove(t, s, Key{blog, "box", "missing"})
	_, err := s.Put(t.Context(), Key{blog, "box", "x"}, Write{Body: failing{}, Size: -1})
	if err == nil {
		t.Fatal("a body that fails is stored")
	}
	_, err = s.DeleteAll(t.Context(), blog, "box", []Deletion{{Name: "x", If: Condition{IfMatch: "other"}}, {Name: "x", Expired: true}})
	must(t, err)
	must(t, s.Close())
	s = open(t, dir, asked)
	page := wantEvents(t, s, blog, CreatedByPut+" x", ExpiredForGood+" x")
	first := page.Events[0]
	if first.Bucket != "box" || first.Size != 5 || first.ETag != o.ETag || first.Version != "" || first.Rule != (Rule{"all", "target"}) || time.Since(first.Time) > time.Minute {
		t.Errorf("event %+v", first)
	}
	vms, err := s.EventVMs()
	if err != nil || !slices.Equal(vms, []gateway.ID{blog}) {
		t.Errorf("VMs %v, %v", vms, err)
	}
	must(t, s.EndEvents(page, first.Number, first.Number, 12345))
	wantEvents(t, s, blog, ExpiredForGood+" x")
	must(t, s.Remove(blog))
	if vms, err := s.EventVMs(); err != nil || len(vms) > 0 {
		t.Errorf("VMs %v, %v", vms, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fmt.Errorf("the client has left") }

// Above the limit writes succeed, and their events are counted.
func TestEventsAreLimited(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, asked)
	s.maxEvents = 8 // 2 for the rule
	for _, name := range []string{"a", "b", "c", "d"} {
		put(t, s, Key{blog, "box", name}, nil)
	}
	put(t, s, Key{shop, "box", "x"}, nil)
	wantEvents(t, s, shop, CreatedByPut+" x")
	page := wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	if page.Dropped != 2 {
		t.Errorf("%d dropped, want 2", page.Dropped)
	}
	must(t, s.EndEvents(page, page.Events[0].Number))
	put(t, s, Key{blog, "box", "e"}, nil)
	must(t, s.Close())
	s = open(t, dir, asked)
	page = wantEvents(t, s, blog, CreatedByPut+" b", CreatedByPut+" e")
	if page.Dropped != 2 {
		t.Errorf("%d dropped, want 2", page.Dropped)
	}
}

// A restore brings the queue of then back: what was delivered since waits again, and what is about undone writes is
// gone. A fork has no events.
func TestEventsOfSnapshots(t *testing.T) {
	s := open(t, t.TempDir(), asked)
	put(t, s, Key{blog, "box", "a"}, nil)
	put(t, s, Key{blog, "box", "b"}, nil)
	mark(t, s, blog, "one")
	page := wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	must(t, s.EndEvents(page, page.Events[0].Number))
	put(t, s, Key{blog, "box", "c"}, nil)
	mark(t, s, blog, "two")
	page = wantEvents(t, s, blog, CreatedByPut+" b", CreatedByPut+" c")
	must(t, s.EndEvents(page, page.Events[1].Number))
	put(t, s, Key{blog, "box", "d"}, nil)
	before := wantEvents(t, s, blog, CreatedByPut+" b", CreatedByPut+" d")

	must(t, s.Fork(blog, "one", shop))
	wantEvents(t, s, shop)
	must(t, s.Restore(blog, "one"))
	wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	if err := s.EndEvents(before, before.Events[0].Number); !errors.Is(err, ErrRestored) || s.Current(before) { // its delivery began before
		t.Errorf("a page from before the restore: %v, current %v", err, s.Current(before))
	}
	wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	must(t, s.Restore(blog, "two"))
	wantEvents(t, s, blog, CreatedByPut+" b", CreatedByPut+" c")
	must(t, s.Drop(blog, "two"))
	page = wantEvents(t, s, blog, CreatedByPut+" b", CreatedByPut+" c")
	must(t, s.EndEvents(page, page.Events[0].Number, page.Events[1].Number))
	must(t, s.Restore(blog, "one"))
	wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	must(t, s.Drop(blog, "one"))
	page = wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	must(t, s.EndEvents(page, page.Events[0].Number, page.Events[1].Number))
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
	a, err := s.account(blog)
	must(t, err)
	if a.stored.values != 0 {
		t.Errorf("%d values of a history without snapshots", a.stored.values)
	}
}

// A drop moves no event to a checkpoint that is older than it: nothing of it is charged there.
func TestDropLeavesNewerEvents(t *testing.T) {
	s := open(t, t.TempDir(), asked)
	put(t, s, Key{blog, "box", "a"}, nil)
	mark(t, s, blog, "one")
	put(t, s, Key{blog, "box", "b"}, nil)
	mark(t, s, blog, "two")
	page := wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	must(t, s.EndEvents(page, page.Events[0].Number, page.Events[1].Number))
	must(t, s.Drop(blog, "two"))
	a, err := s.account(blog)
	must(t, err)
	one, _ := a.find("one")
	for i, there := range []bool{true, false} {
		if _, err := value(s.index, historyKey(blog, one, eventKey(blog, page.Events[i].Number))); missing(err) == there {
			t.Errorf("event %s in the history of the first checkpoint: %v", page.Events[i].Name, err)
		}
	}
	wantCounted(t, s, a)
	must(t, s.Restore(blog, "one"))
	wantEvents(t, s, blog, CreatedByPut+" a")
	must(t, s.Drop(blog, "one"))
	if a.stored.values != 0 {
		t.Errorf("%d values of a history without checkpoints", a.stored.values)
	}
}

// A record that cannot be decoded is reported, and holds up no others.
func TestDamagedEvent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, asked)
	put(t, s, Key{blog, "box", "a"}, nil)
	put(t, s, Key{blog, "box", "b"}, nil)
	page := wantEvents(t, s, blog, CreatedByPut+" a", CreatedByPut+" b")
	broken := page.Events[0].Number
	must(t, s.index.Set(eventKey(blog, broken), []byte{0xff}, pebble.Sync))
	must(t, s.Close())
	s = open(t, dir, asked)
	if found := checked(t, s); len(found) != 1 {
		t.Errorf("found %v, want one damage", found)
	}
	page, err := s.Events(blog, 0, 1)
	if err != nil || len(page.Events) != 0 || !slices.Equal(page.Damaged, []uint64{broken}) || page.Last != broken {
		t.Fatalf("page %+v, %v", page, err)
	}
	must(t, s.DropEvents(page, page.Damaged...))
	if page = wantEvents(t, s, blog, CreatedByPut+" b"); page.Dropped != 1 || !s.Current(page) {
		t.Errorf("page %+v", page)
	}
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

// Events that wait for one rule leave places for those of other rules, after a restart too, up to the limit of the VM.
func TestRulesShareTheQueue(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, asked)
	s.maxEvents = 8
	for range 5 {
		put(t, s, Key{blog, "bad", "x"}, nil)
	}
	page := wantEvents(t, s, blog, CreatedByPut+" x", CreatedByPut+" x")
	if page.Dropped != 3 {
		t.Errorf("%d dropped, want 3", page.Dropped)
	}
	must(t, s.Close())
	s = open(t, dir, asked)
	s.maxEvents = 8
	put(t, s, Key{blog, "good", "x"}, nil)
	put(t, s, Key{blog, "bad", "x"}, nil)
	if page = wantEvents(t, s, blog, CreatedByPut+" x", CreatedByPut+" x", CreatedByPut+" x"); page.Dropped != 4 || page.Events[2].Bucket != "good" {
		t.Errorf("page %+v", page)
	}
	if rules, err := s.EventRules(blog); err != nil || len(rules) != 2 || !slices.Contains(rules, RuleOf{"good", "all"}) {
		t.Errorf("rules %v, %v", rules, err)
	}
	for _, name := range []string{"aaa", "bbb", "ccc", "ddd", "eee", "fff"} {
		put(t, s, Key{blog, name, "x"}, nil)
	}
	if page, err := s.Events(blog, 0, 100); err != nil || len(page.Events) != 8 || page.Dropped != 5 {
		t.Errorf("%d wait and %d dropped, %v", len(page.Events), page.Dropped, err)
	}
}
