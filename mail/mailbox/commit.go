package mailbox

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"lodge/gateway"
)

// Letter is one recipient's record of a staged message.
type Letter struct {
	VM       gateway.ID
	QueueID  string // from NewQueueID
	From     string // envelope sender, empty for a bounce
	Rcpt     string // envelope recipient
	Subject  string
	Head     string // trace headers on top of the body, with CRLF line ends
	Received time.Time
}

// Commit records the message for every letter, all or none, and returns once that is synced to
// disk. A crash while several VMs' records are written may leave some of them; the sender got no
// reply and sends again. A full disk gives KindNoSpace.
func (s *Store) Commit(st *Staged, letters []Letter) error {
	if err := st.f.Sync(); err != nil {
		return withKind(fmt.Errorf("sync message: %w", err))
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
			rollback(adds)
			return withKind(err)
		}
	}
	var group errgroup.Group
	for _, a := range adds {
		group.Go(a.commit)
	}
	if err := group.Wait(); err != nil {
		rollback(adds)
		return withKind(err)
	}
	return nil
}

// addition is one VM's part in a Commit.
type addition struct {
	box  *Box
	recs []record
	done bool
}

// prepare does everything that can fail on a full disk: it reserves room in the index and links the
// body. The last letter takes the staged file itself.
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

// rollback removes the additions of a transaction that failed at another VM.
func rollback(adds []*addition) {
	for _, a := range adds {
		if a.done {
			uids := make([]uint32, 0, len(a.recs))
			for _, r := range a.recs {
				uids = append(uids, r.UID)
			}
			// If this fails too, the VM gets the message twice after the next attempt of the
			// sender.
			_ = a.box.Expunge(uids)
			continue
		}
		for _, r := range a.recs {
			_ = removeFile(a.box.body(r.QueueID)) // an orphan otherwise: removed at the next open
		}
	}
}
