package imapd

import (
	"io"
	"math"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// maxFirstBytes of a message are kept in memory to find its subject.
const maxFirstBytes = 32 << 10

// Append stores a message that a client sends. It is synced to disk when the client gets OK, and is no new
// mail: it is not delivered into the guest. go-imap reads and drops what this leaves of the literal.
func (s *session) Append(name string, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	box, err := s.destination(name)
	if err != nil {
		return nil, err
	}
	if r.Size() == 0 {
		return nil, no(imap.ResponseCodeCannot, "The message is empty")
	}
	if err := s.server.config.Store.Fits(s.vm.ID, r.Size()); err != nil { // before all of it is read
		return nil, s.answer(err)
	}
	var data *imap.AppendData
	err = s.taking(r.Size(), func() error {
		data, err = s.store(box, r, options)
		return err
	})
	return data, err
}

// taking runs add, which adds messages of that many bytes, if the VM can get them now. What add does not add is
// given back.
func (s *session) taking(bytes int64, add func() error) error {
	if s.server.config.Take == nil {
		return add()
	}
	undo, ok := s.server.config.Take(s.vm.ID, bytes)
	if !ok {
		return no(imap.ResponseCodeLimit, "This mailbox has received too much mail for now, try again later")
	}
	err := add()
	if err != nil {
		undo()
	}
	return err
}

// store adds a message to a folder.
func (s *session) store(box *mailbox.Box, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	staged, err := s.server.config.Store.Stage()
	if err != nil {
		return nil, s.answer(err)
	}
	defer staged.Remove()
	first := &firstBytes{}
	n, err := io.Copy(io.MultiWriter(staged, first), r)
	if err != nil {
		return nil, s.answer(err)
	}
	if n != r.Size() {
		_ = s.conn.Close() // the client is gone
		return nil, no("", "The message is incomplete")
	}
	received := options.Time
	if received.IsZero() {
		received = time.Now()
	}
	uid, err := box.Append(staged, s.kept(box, options.Flags), received, s.server.config.Subject(first.bytes))
	if err != nil {
		return nil, s.answer(err)
	}
	return &imap.AppendData{UID: imap.UID(uid), UIDValidity: box.Snapshot().Validity}, nil
}

// AppendLimit is the most that Append takes, in bytes (RFC 7889). go-imap refuses more before it is sent. It
// offers LITERAL- and not LITERAL+, so that no client sends more without asking: go-imap would read what it
// has refused as commands.
func (s *session) AppendLimit() uint32 {
	return uint32(min(s.server.config.MaxMessageBytes, math.MaxUint32)) //nolint:gosec // it is not negative
}

// kept returns the flags of a new message. Keywords for which there is no room are left out.
func (s *session) kept(box *mailbox.Box, list []imap.Flag) mailbox.Flags {
	flags, keywords := splitFlags(list)
	for _, name := range keywords {
		if flag, err := box.Keywords([]string{name}); err == nil {
			flags |= flag
		}
	}
	return flags
}

// firstBytes keeps the beginning of what is written.
type firstBytes struct{ bytes []byte }

// Write implements io.Writer.
func (f *firstBytes) Write(p []byte) (int, error) {
	f.bytes = append(f.bytes, p[:min(len(p), maxFirstBytes-len(f.bytes))]...)
	return len(p), nil
}

// destination opens a folder that messages are to be put into.
func (s *session) destination(name string) (*mailbox.Box, error) {
	box, err := s.folders.Open(name)
	if gateway.KindOf(err) == gateway.KindNotFound {
		return nil, no(imap.ResponseCodeTryCreate, "There is no such folder")
	}
	return box, s.answer(err)
}

// Copy copies messages, all or none.
func (s *session) Copy(set imap.NumSet, name string) (*imap.CopyData, error) {
	to, err := s.destination(name)
	if err != nil {
		return nil, err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	picked, _ := s.pick(set)
	bytes := int64(0)
	for _, m := range picked {
		bytes += m.Bytes
	}
	var done []mailbox.Transferred
	err = s.taking(bytes, func() (err error) {
		done, err = s.box.Copy(uidsOf(picked), to)
		return s.answer(err)
	})
	return copied(to, done), err
}

// Move moves messages (RFC 6851). Poll then sends the numbers of those that are gone. If it fails, those that
// were moved are announced nevertheless.
func (s *session) Move(w *imapserver.MoveWriter, set imap.NumSet, name string) error {
	to, err := s.destination(name)
	if err != nil {
		return err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.view.readOnly {
		return errReadOnly()
	}
	picked, _ := s.pick(set)
	done, err := s.box.Move(uidsOf(picked), to)
	if data := copied(to, done); data != nil {
		if err := w.WriteCopyData(data); err != nil {
			return err
		}
	}
	return s.answer(err)
}

// copied is the data of COPYUID; nil if nothing was copied. Both sets are in one order (RFC 4315 §3).
func copied(to *mailbox.Box, done []mailbox.Transferred) *imap.CopyData {
	if len(done) == 0 {
		return nil
	}
	data := &imap.CopyData{UIDValidity: to.Snapshot().Validity}
	for _, one := range done { // by UID, in both
		data.SourceUIDs.AddNum(imap.UID(one.From))
		data.DestUIDs.AddNum(imap.UID(one.To))
	}
	return data
}
