package imapd

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// mirror applies what it is sent, as a client that trusts the server does.
type mirror struct {
	uids  []uint32
	flags map[uint32]mailbox.Flags
	exist int
}

func (c *mirror) WriteExpunge(seq uint32) error {
	c.uids = slices.Delete(c.uids, int(seq)-1, int(seq))
	c.exist--
	return nil
}

func (c *mirror) WriteMailboxFlags([]imap.Flag) error { return nil }

func (c *mirror) WriteNumMessages(n uint32) error { c.exist = int(n); return nil }

func (c *mirror) WriteMessageFlags(seq uint32, uid imap.UID, flags []imap.Flag) error {
	if c.uids[seq-1] != uint32(uid) {
		return errBroken
	}
	c.flags[uint32(uid)] = fromIMAP(flags)
	return nil
}

// A client of a mailbox of many pages that gets the changes now and then has the numbers and flags that are
// true, whatever the changes were.
func TestViewOfManyPages(t *testing.T) {
	f := newFixture(t)
	random := rand.New(rand.NewPCG(3, 4)) // not a secret
	more := func(n int) {
		staged, err := f.config.Store.Stage()
		gatewaytest.Must(t, err)
		defer staged.Remove()
		var letters []mailbox.Letter
		for range n {
			letters = append(letters, mailbox.Letter{VM: f.vm.ID, QueueID: mailbox.NewQueueID(time.Now()), Received: received})
		}
		gatewaytest.Must(t, f.config.Store.Commit(staged, letters))
	}
	more(1500)
	c := &mirror{flags: map[uint32]mailbox.Flags{}}
	v := newView(f.box.Snapshot(), false)
	c.uids, c.exist = slices.Clone(v.uids), len(v.uids)
	for step := range 60 {
		now := f.box.Snapshot()
		from := random.Uint32N(now.NextUID)
		uids := []uint32{from, from + 1, random.Uint32N(now.NextUID)}
		switch random.IntN(5) {
		case 0:
			more(1 + random.IntN(300))
		case 1:
			for i := range uint32(300) { // a page and more
				uids = append(uids, from+i)
			}
			fallthrough
		case 2:
			gatewaytest.Must(t, f.box.Expunge(uids))
		default:
			gatewaytest.Must(t, f.box.SetFlags(uids, mailbox.Flags(random.IntN(32)), mailbox.AllFlags))
		}
		if random.IntN(3) == 0 {
			continue
		}
		now = f.box.Snapshot()
		gatewaytest.Must(t, v.update(c, now, true))
		for _, uid := range v.uids[len(c.uids):] { // it asks for the new ones
			e, _ := now.Entries.Find(uid)
			c.uids, c.flags[uid] = append(c.uids, uid), e.Flags
		}
		var wrong []uint32
		for i, e := range now.Entries.All() {
			if i >= len(c.uids) || c.uids[i] != e.UID || c.flags[e.UID] != e.Flags {
				wrong = append(wrong, e.UID)
			}
		}
		if len(wrong) > 0 || c.exist != now.Entries.Len() || len(c.uids) != c.exist {
			t.Fatalf("step %d: %d of %d messages are wrong, first UID %d", step, len(wrong), c.exist, wrong[:min(1, len(wrong))])
		}
	}
}
