package mailbox

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"lodge/gateway"
)

// Staged is a message that is coming in. It is on disk from the first byte, and gone after Discard.
type Staged struct {
	f     *os.File
	bytes int64
}

// Stage begins a message.
func (s *Store) Stage() (*Staged, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "stage", NewQueueID(time.Now())), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stage message: %w", err)
	}
	return &Staged{f: f}, nil
}

// Write adds to the message.
func (st *Staged) Write(p []byte) (int, error) {
	n, err := st.f.Write(p)
	st.bytes += int64(n)
	if err != nil {
		return n, fmt.Errorf("write message: %w", err)
	}
	return n, nil
}

// Discard drops the staged file. What Commit has recorded stays. It may be called twice.
func (st *Staged) Discard() {
	_ = st.f.Close() // nothing depends on it: Commit has synced, or nobody wants the bytes
	_ = removeFile(st.f.Name())
}

// Letter is one recipient's record of a staged message.
type Letter struct {
	VM       gateway.ID
	QueueID  string // from NewQueueID
	From     string // envelope sender, empty for a bounce
	Rcpt     string // envelope recipient
	Subject  string
	Head     string // trace headers to put on top, with CRLF line ends
	Received time.Time
}

// Commit records the message for every letter, all or none, and returns once that is safe on disk. A process killed
// while several VMs' records are written may leave some of them; its sender got no answer and will send again.
// A full disk gives KindNoSpace.
func (s *Store) Commit(st *Staged, letters []Letter) error {
	if err := st.f.Sync(); err != nil {
		return SpaceOr(fmt.Errorf("sync message: %w", err))
	}
	byVM := map[gateway.ID][]Letter{}
	for _, l := range letters {
		byVM[l.VM] = append(byVM[l.VM], l)
	}
	adds := make([]*addition, 0, len(byVM))
	left := len(letters)
	for id, mine := range byVM {
		left -= len(mine)
		b, err := s.Box(id)
		if err == nil {
			var a *addition
			a, err = b.prepare(st, mine, left == 0)
			adds = append(adds, a)
		}
		if err != nil {
			withdraw(adds)
			return SpaceOr(err)
		}
	}
	var group errgroup.Group
	for _, a := range adds {
		group.Go(a.commit)
	}
	if err := group.Wait(); err != nil {
		withdraw(adds)
		return SpaceOr(err)
	}
	return nil
}

// addition is one VM's part in a Commit.
type addition struct {
	box  *Box
	recs []record
	done bool
}

// prepare does all that a full disk can refuse: it reserves room in the index and links the body. The last letter of all
// takes the staged file itself.
func (b *Box) prepare(st *Staged, letters []Letter, last bool) (*addition, error) {
	a := &addition{box: b}
	if err := b.reserve(); err != nil {
		return a, err
	}
	for i, l := range letters {
		place := os.Link
		if last && i == len(letters)-1 {
			place = os.Rename
		}
		if err := place(st.f.Name(), b.body(l.QueueID)); err != nil {
			return a, fmt.Errorf("link message: %w", err)
		}
		a.recs = append(a.recs, record{
			Op: opAdd, QueueID: l.QueueID, From: l.From, Rcpt: l.Rcpt, Subject: l.Subject, Head: l.Head,
			Bytes: int64(len(l.Head)) + st.bytes, Received: l.Received.UTC().Truncate(time.Millisecond),
		})
	}
	return a, nil
}

func (a *addition) commit() error {
	if err := a.box.do(a.recs); err != nil {
		return err
	}
	a.done = true
	return nil
}

// withdraw undoes additions of a transaction that failed at another VM.
func withdraw(adds []*addition) {
	for _, a := range adds {
		if a.done {
			uids := make([]uint32, 0, len(a.recs))
			for _, r := range a.recs {
				uids = append(uids, r.UID)
			}
			// Were even this to fail, the sender would only find its message there twice after its next try.
			_ = a.box.Expunge(uids)
			continue
		}
		for _, r := range a.recs {
			_ = removeFile(a.box.body(r.QueueID)) // an orphan otherwise: removed at the next open
		}
	}
}

// SpaceOr turns "the disk is full" into an error for people; others stay as they are.
func SpaceOr(err error) error {
	if IsFull(err) {
		return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").
			WithHint("Free some space on the host; mail comes in again by itself.").Because(err)
	}
	return err
}

// IsFull reports whether err says that the disk or a quota is full.
func IsFull(err error) bool {
	return errors.Is(err, errNoSpace) || errors.Is(err, errQuota)
}

// NewQueueID returns a name that is unique on this host for ever: 48 bits of milliseconds and 80 random bits, as 26
// characters of a-v and 0-9 that sort by time. It is safe as a file name and as a Maildir name.
func NewQueueID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli())) // after 1970
	copy(b[:6], ms[2:])
	return base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding).EncodeToString(b[:])
}
