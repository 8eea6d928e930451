package mailbox

import (
	"errors"
	"os"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// maxMessages is how many messages a VM may have with those that IMAP adds. Received mail has a rate instead.
const maxMessages = 250_000

var errOverQuota = errors.New("quota exceeded")

// OverQuota reports whether an error means that a VM's mailbox is full; the host's disk is not.
func OverQuota(err error) bool { return errors.Is(err, errOverQuota) }

// Obey sets where the settings of a VM's mail come from: Fits and Commit obey QuotaBytes, Run Keep. It
// is called before the store is used. A store that it was not called for has no limits.
func (s *Store) Obey(settings func(gateway.ID) gateway.MailSettings) { s.settings = settings }

// Room fails with KindNoSpace if a message of that many bytes would take from the reserve of the host's
// disk, see durable.Room. Mail is refused before the disk is full, so that
// flags, expunges and indexes can still be written, as can the host's other records.
func (s *Store) Room(bytes int64) error {
	err := durable.Room(s.dir, bytes)
	if durable.IsFull(err) {
		return withKind(err)
	}
	return err
}

// Fits fails if a message of that many bytes would go above the VM's quota now, or if the mailbox is
// full; see OverQuota. Without a quota it reads nothing. Only Commit decides.
func (s *Store) Fits(id gateway.ID, bytes int64) error {
	quota := s.settings(id).QuotaBytes
	if quota == 0 {
		return nil
	}
	f, err := s.Folders(id)
	if err != nil {
		return err
	}
	f.room.Lock()
	defer f.room.Unlock()
	return f.fits(max(bytes, 1), quota)
}

// claim takes bytes of the quota for messages that are not visible yet, until release. Commit claims for
// all VMs before it writes to one, so that a quota never leaves a message with some of them.
func (b *Box) claim(bytes, quota int64) error {
	f := b.folders
	f.room.Lock()
	defer f.room.Unlock()
	if err := f.fits(bytes, quota); err != nil {
		return err
	}
	f.claimed += bytes
	return nil
}

func (b *Box) release(bytes int64) {
	b.folders.room.Lock()
	defer b.folders.room.Unlock()
	b.folders.claimed -= bytes
}

// fits compares the quota, if there is one, with INBOX and all folders. The caller holds f.room.
func (f *Folders) fits(bytes, quota int64) error {
	if quota <= 0 {
		return nil
	}
	if used, _ := f.used(); used+f.claimed+bytes > quota {
		return gateway.Errorf(gateway.KindNoSpace, "the mailbox is full").
			WithHint("Remove mail (lodge mail rm), or raise the quota (lodge mail set --quota).").Because(errOverQuota)
	}
	return nil
}

// takes fails if IMAP may not add n messages: each has an entry in memory, however small it is.
func (f *Folders) takes(n int) error {
	f.room.Lock()
	defer f.room.Unlock()
	if _, messages := f.used(); messages+n > maxMessages {
		return gateway.Errorf(gateway.KindNoSpace, "the mailbox has %d messages", messages).
			WithHint("A mail program may add some up to %d in all. Remove mail first.", maxMessages).Because(errOverQuota)
	}
	return nil
}

// used is the bytes and the number of all messages. It opens folders that have some. Those of one that cannot be read do
// not count: mail comes in nevertheless.
func (f *Folders) used() (bytes int64, messages int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := func(b *Box) {
		s := b.shown.Load()
		bytes, messages = bytes+s.bytes, messages+s.Entries.Len()
	}
	count(f.inbox)
	if err := f.load(); err != nil {
		f.inbox.logger.Error("folders not counted", "err", err)
		return bytes, messages
	}
	for _, r := range f.table.Folders {
		if f.boxes[r.ID] == nil {
			if _, err := os.Stat(f.path(r.ID)); err != nil {
				continue // nobody has opened it yet
			}
		}
		b, err := f.open(r)
		if err != nil {
			f.inbox.logger.Error("folder not counted", "err", err)
			continue
		}
		count(b)
	}
	return bytes, messages
}
