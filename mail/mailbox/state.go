package mailbox

import (
	"slices"
	"time"
)

// Entry is the part of a message that is kept in memory.
type Entry struct {
	QueueID  string
	UID      uint32
	Flags    Flags
	Bytes    int64 // of the message, trace headers included
	Received time.Time
	Mod      uint64 // Snapshot.Mod after the entry's last change

	at place
}

// place is where a message's frame is.
type place struct {
	segment uint32 // its number
	head    uint32 // bytes up to the body
	offset  int64
	length  int64 // head, and an inline body
	file    bool  // the body is in big
}

// Snapshot is a mailbox at one moment. It costs nothing to take: all share it.
type Snapshot struct {
	Entries  List
	Validity uint32 // UIDVALIDITY (RFC 9051 §2.3.1.1), set when the mailbox is created
	NextUID  uint32
	Mod      uint64
	Keywords []string // never changed in place; see Flags

	bytes    int64     // of all messages, see MailSettings.QuotaBytes
	parked   int       // messages with that flag
	cursor   uint32    // every message up to it is in the guest, or parked
	segments []segment // of the log, by number
}

// Delivered reports whether a message is in the guest, or need not be.
func (s *Snapshot) Delivered(e Entry) bool {
	return e.Flags&local != 0 || e.UID <= s.cursor && e.Flags&parked == 0
}

// Bytes is the size of all messages.
func (s *Snapshot) Bytes() int64 { return s.bytes }

// segment returns the segment with a number, which there must be.
func (s *Snapshot) segment(number uint32) segment {
	i := slices.IndexFunc(s.segments, func(g segment) bool { return g.number == number })
	return s.segments[i]
}

// state is what frames lead to.
type state struct {
	Snapshot                // its Entries are those of list when it is shown
	list     editor         // of the messages
	used     map[uint32]int // messages by segment
	live     int64          // bytes of their frames
}

func newState() *state { return &state{Snapshot: Snapshot{NextUID: 1}, used: map[uint32]int{}} }

// apply makes a frame's change. A frame of a message that is there already moves it.
func (s *state) apply(f *frame, at place) error {
	s.Mod++
	switch f.kind {
	case kindHead:
		s.Validity, s.NextUID = f.value, max(s.NextUID, f.uid)
	case kindCursor:
		s.cursor = max(s.cursor, f.uid)
		s.passLocal()
	case kindRewind:
		s.cursor = f.uid
		s.passLocal()
	case kindAdd, kindAddFile:
		return s.add(f, at)
	case kindFlags:
		for _, uid := range decodeUIDs(f.meta) {
			s.list.edit(uid, func(e *Entry) {
				s.parked += isParked(e.Flags&^f.clear|f.flags) - isParked(e.Flags)
				e.Flags, e.Mod = e.Flags&^f.clear|f.flags, s.Mod
			})
		}
	case kindExpunge:
		s.list.remove(decodeUIDs(f.meta), func(e Entry) { s.count(e, -1) })
	case kindKeywords:
		names, err := decodeKeywords(f.meta)
		if err != nil {
			return err
		}
		if len(names) > len(s.Keywords) { // else it is older, which damage can bring about
			s.Keywords = names
		}
	default:
		return errFrame
	}
	return nil
}

func (s *state) add(f *frame, at place) error {
	env, err := decodeEnvelope(f.meta)
	if err != nil || f.uid == 0 {
		return errFrame
	}
	e := Entry{
		QueueID: env.id, UID: f.uid, Flags: f.flags & (AllFlags | AllKeywords | local | parked), Bytes: int64(len(env.head)) + f.bytes,
		Received: f.received, Mod: s.Mod, at: at,
	}
	if old, there := s.list.Find(f.uid); there {
		s.count(old, -1)
		e.Mod = old.Mod // a client sees no change
		s.list.edit(f.uid, func(there *Entry) { *there = e })
	} else {
		s.list.add(e)
	}
	s.count(e, 1)
	s.NextUID = max(s.NextUID, f.uid+1)
	if e.Flags&local != 0 {
		s.passLocal()
	}
	return nil
}

// passLocal moves the cursor over messages that are not for the guest, so that few have to be passed over
// to find one that is.
func (s *state) passLocal() {
	for e, ok := s.list.next(s.cursor + 1); ok && e.Flags&local != 0; e, ok = s.list.next(s.cursor + 1) {
		s.cursor = e.UID
	}
}

func (s *state) count(e Entry, n int) {
	s.live += int64(n) * e.at.length
	s.bytes += int64(n) * e.Bytes
	s.parked += n * isParked(e.Flags)
	s.use(e.at.segment, n)
}

// use counts n messages of a segment.
func (s *state) use(segment uint32, n int) {
	if s.used[segment] += n; s.used[segment] == 0 {
		delete(s.used, segment)
	}
}

func isParked(f Flags) int {
	if f&parked != 0 {
		return 1
	}
	return 0
}

// placeOf returns the place of a frame at off of a segment.
func placeOf(f *frame, segment uint32, off int64) place {
	head := uint32(headBytes + len(f.meta)) // meta is of maxMetaBytes at most
	return place{segment: segment, offset: off, head: head, length: f.length(), file: f.kind == kindAddFile}
}
