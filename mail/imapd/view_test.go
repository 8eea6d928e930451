package imapd

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/google/go-cmp/cmp"

	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// sent records what an update sends.
type sent struct {
	lines []string
	err   error
}

func (s *sent) write(format string, args ...any) error {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	return s.err
}

func (s *sent) WriteExpunge(seq uint32) error             { return s.write("%d EXPUNGE", seq) }
func (s *sent) WriteNumMessages(n uint32) error           { return s.write("%d EXISTS", n) }
func (s *sent) WriteMailboxFlags(flags []imap.Flag) error { return s.write("FLAGS %v", flags) }
func (s *sent) WriteMessageFlags(seq uint32, uid imap.UID, flags []imap.Flag) error {
	return s.write("%d FETCH UID %d %v", seq, uid, flags)
}

func snapshot(mod uint64, entries ...mailbox.Entry) mailbox.Snapshot {
	return mailbox.Snapshot{Mod: mod, Entries: mailbox.NewList(entries...)}
}

func TestViewUpdate(t *testing.T) {
	one, two, three := mailbox.Entry{UID: 10}, mailbox.Entry{UID: 20}, mailbox.Entry{UID: 30}
	four := mailbox.Entry{UID: 40, Mod: 6}
	flagged := mailbox.Entry{UID: 30, Mod: 6, Flags: mailbox.Seen | mailbox.Flagged}
	for name, test := range map[string]struct {
		now      mailbox.Snapshot
		expunges bool
		sent     []string
		uids     []uint32
	}{
		"nothing":        {snapshot(5, one, two, three), true, nil, []uint32{10, 20, 30}},
		"new":            {snapshot(6, one, two, three, four), false, []string{"4 EXISTS"}, []uint32{10, 20, 30, 40}},
		"flags":          {snapshot(6, one, two, flagged), false, []string{`3 FETCH UID 30 [\Flagged \Seen]`}, []uint32{10, 20, 30}},
		"expunged":       {snapshot(7, two), true, []string{"3 EXPUNGE", "1 EXPUNGE"}, []uint32{20}},
		"not now":        {snapshot(7, two, flagged, four), false, nil, []uint32{10, 20, 30}},
		"all at once":    {snapshot(7, one, flagged, four), true, []string{"2 EXPUNGE", "3 EXISTS", `2 FETCH UID 30 [\Flagged \Seen]`}, []uint32{10, 30, 40}},
		"everything new": {snapshot(9, four), true, []string{"3 EXPUNGE", "2 EXPUNGE", "1 EXPUNGE", "1 EXISTS"}, []uint32{40}},
		"empty":          {snapshot(9), true, []string{"3 EXPUNGE", "2 EXPUNGE", "1 EXPUNGE"}, []uint32{}},
	} {
		v := newView(snapshot(5, one, two, three), false)
		var out sent
		gatewaytest.Must(t, v.update(&out, test.now, test.expunges))
		if diff := cmp.Diff(test.sent, out.lines); diff != "" {
			t.Errorf("%s is sent as: %s", name, diff)
		}
		if diff := cmp.Diff(test.uids, v.uids); diff != "" {
			t.Errorf("%s makes the view: %s", name, diff)
		}
		var again sent
		gatewaytest.Must(t, v.update(&again, test.now, true))
		if kept := name == "not now"; (len(again.lines) > 0) != kept {
			t.Errorf("%s: the next update sends %v", name, again.lines)
		}
	}
}

// An update that cannot be sent ends with the error of the first line.
func TestViewUpdateFails(t *testing.T) {
	v := newView(snapshot(5, mailbox.Entry{UID: 1}), false)
	out := sent{err: errBroken}
	err := v.update(&out, snapshot(6, mailbox.Entry{UID: 2}), true)
	if !errors.Is(err, errBroken) || len(out.lines) != 1 {
		t.Errorf("%v, sent %v", err, out.lines)
	}
}

func TestPick(t *testing.T) {
	v := newView(snapshot(1, mailbox.Entry{UID: 10}, mailbox.Entry{UID: 20}, mailbox.Entry{UID: 30}), false)
	now := snapshot(2, mailbox.Entry{UID: 10}, mailbox.Entry{UID: 30}, mailbox.Entry{UID: 40}) // 20 is gone, 40 not in the view
	for name, test := range map[string]struct {
		set  imap.NumSet
		want string
	}{
		"all":                 {imap.SeqSet{{Start: 1, Stop: 0}}, "1=10 3=30"},
		"number 0 is *":       {imap.SeqSet{{Start: 0, Stop: 0}}, "3=30"},
		"backwards":           {imap.SeqSet{{Start: 3, Stop: 1}}, "1=10 3=30"},
		"behind the end":      {imap.SeqSet{{Start: 9, Stop: 9}}, ""},
		"* and behind":        {imap.SeqSet{{Start: 9, Stop: 0}}, "3=30"},
		"vanished":            {imap.SeqSetNum(2), ""},
		"UIDs":                {imap.UIDSet{{Start: 10, Stop: 20}}, "1=10"},
		"UID that is unknown": {imap.UIDSetNum(11), ""},
		"UID not in the view": {imap.UIDSetNum(40), ""},
		"UID *":               {imap.UIDSet{{Start: 0, Stop: 0}}, "3=30"},
		"UIDs behind the end": {imap.UIDSet{{Start: 1000, Stop: 0}}, "3=30"}, // RFC 3501 §9: * is the largest
		"twice":               {imap.UIDSet{{Start: 10, Stop: 10}, {Start: 1, Stop: 15}}, "1=10"},
		"no set":              {nil, ""},
	} {
		var got []string
		for _, m := range v.pick(test.set, now) {
			got = append(got, fmt.Sprintf("%d=%d", m.seq, m.UID))
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	empty := newView(snapshot(1), false)
	for _, all := range []imap.NumSet{imap.SeqSet{{Start: 1, Stop: 0}}, imap.UIDSet{{Start: 1, Stop: 0}}} {
		if got := empty.pick(all, now); len(got) > 0 {
			t.Errorf("%v of an empty view: %v", all, got)
		}
	}
}

// The parts of a view that a set picks are those that its matcher has, once and in order.
func TestRangesAreWhatMatches(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4)) // not a secret
	for range 2000 {
		v := &view{}
		for uid := uint32(1); len(v.uids) < random.IntN(9); uid += 1 + random.Uint32N(3) {
			v.uids = append(v.uids, uid)
		}
		var seqs imap.SeqSet
		var uids imap.UIDSet
		for range random.IntN(4) {
			start, stop := random.Uint32N(14), random.Uint32N(14)
			if stop == 13 {
				stop = math.MaxUint32
			}
			seqs, uids = append(seqs, imap.SeqRange{Start: start, Stop: stop}), append(uids, imap.UIDRange{Start: imap.UID(start), Stop: imap.UID(stop)})
		}
		for _, set := range []imap.NumSet{seqs, uids} {
			var want, got []uint32
			has := v.matcher(set)
			for n, uid := range v.uids {
				if has(uint32(n)+1, uid) {
					want = append(want, uid)
				}
			}
			for _, r := range v.ranges(set) {
				got = append(got, v.uids[r.from:r.to]...)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v of %d picks %d, want %d", set, v.uids, got, want)
			}
		}
	}
}

func TestFlags(t *testing.T) {
	for _, flag := range toIMAP(mailbox.AllFlags, nil) {
		if got := toIMAP(fromIMAP([]imap.Flag{flag}), nil); len(got) != 1 || got[0] != flag {
			t.Errorf("%s comes back as %v", flag, got)
		}
	}
	if got := fromIMAP([]imap.Flag{`\seen`, "$Junk", `\Recent`, `\SEEN`}); got != mailbox.Seen {
		t.Errorf("flags %v, want seen alone", got)
	}
	if got := toIMAP(0, nil); len(got) != 0 {
		t.Errorf("no flags are %v", got)
	}
}

// Flags that a command sends itself are not sent again; what another session did meanwhile is.
func TestSetFlagsKeepsOthersChanges(t *testing.T) {
	f := newFixture(t, "\r\n1", "\r\n2", "\r\n3")
	s := f.open(t)
	gatewaytest.Must(t, s.setFlags(f.box.Snapshot(), []uint32{1}, mailbox.Seen, 0))
	var out sent
	gatewaytest.Must(t, s.view.update(&out, f.box.Snapshot(), true))
	if len(out.lines) > 0 {
		t.Errorf("sent again: %v", out.lines)
	}
	before := f.box.Snapshot()
	gatewaytest.Must(t, f.box.Expunge([]uint32{2}))
	gatewaytest.Must(t, s.setFlags(before, []uint32{1, 2, 3}, mailbox.Flagged, 0))
	gatewaytest.Must(t, s.view.update(&out, f.box.Snapshot(), true))
	want := []string{"2 EXPUNGE", `1 FETCH UID 1 [\Flagged \Seen]`, `2 FETCH UID 3 [\Flagged]`}
	if diff := cmp.Diff(want, out.lines); diff != "" {
		t.Error(diff)
	}
}
