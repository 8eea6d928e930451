package relay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// maxAddressBytes is RFC 5321 §4.5.3.1.3, without the brackets.
const maxAddressBytes = 254

// Send takes a message, signs it, and returns once it is synced to disk for all recipients. The queue id
// is in all log lines about it. What is wrong with a message is KindInvalid; a VM with too much mail that
// waits gets KindNoSpace, and so does a full disk; KindUnavailable: the queue is closed.
func (q *Queue) Send(ctx context.Context, m Message) (queueID string, err error) {
	if err := q.check(m); err != nil {
		return "", err
	}
	staged, err := q.store.Stage()
	if err != nil {
		return "", err
	}
	defer staged.Remove()
	bytes, signatures, err := q.stage(ctx, staged, m)
	if err != nil {
		return "", err
	}
	now := time.Now().UTC()
	base := mailbox.NewQueueID(now)
	letters := make([]mailbox.Letter, 0, len(m.To))
	kept := make([]letter, 0, len(m.To))
	for i, to := range m.To {
		head, err := record{From: m.From, UTF8: m.UTF8, VM: m.VM}.encode()
		if err != nil {
			return "", err
		}
		l := mailbox.Letter{VM: m.VM.ID, QueueID: letterID(base, i), From: m.From, Rcpt: to, Head: head + signatures, Received: now}
		letters = append(letters, l)
		kept = append(kept, letter{queueID: l.QueueID, to: to, bytes: bytes + int64(len(l.Head)), born: now})
	}
	if err := q.read(m.VM.ID); err != nil {
		return "", err
	}
	admitted, err := q.admit(m.VM.ID, kept)
	if err != nil {
		return "", err
	}
	if err := q.commit(admitted, staged, letters, kept, m.Ready); err != nil {
		return "", err
	}
	q.config.Logger.Info("message queued", gateway.LogVM(m.VM), "queue_id", letters[0].QueueID, "from", m.From, "bytes", bytes)
	for _, l := range letters {
		q.config.Journal.Add(m.VM.ID, gateway.MailEvent{Kind: gateway.MailQueued, QueueID: l.QueueID, From: m.From, To: l.Rcpt, Bytes: bytes})
	}
	return letters[0].QueueID, nil
}

// commit records letters and schedules them. Nothing fails that comes after the record.
func (q *Queue) commit(l *lane, staged *mailbox.Staged, letters []mailbox.Letter, kept []letter, ready func() error) error {
	box, err := q.store.Box(l.vm)
	if err == nil && ready != nil {
		err = ready()
	}
	if err == nil {
		err = q.store.Commit(staged, letters)
	}
	if err == nil {
		err = findUIDs(box, kept)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l.uncount(kept) // add counts them again
	if err == nil {
		q.add(l.vm, kept)
	}
	return err
}

// findUIDs sets the UIDs of letters that were just committed: they are near the end.
func findUIDs(box *mailbox.Box, kept []letter) error {
	missing := make(map[string]*letter, len(kept))
	for i := range kept {
		missing[kept[i].queueID] = &kept[i]
	}
	for e := range box.Snapshot().Entries.Backward() {
		if len(missing) == 0 {
			break
		}
		if m, ok := missing[e.QueueID]; ok {
			m.uid = e.UID
			delete(missing, e.QueueID)
		}
	}
	if len(missing) > 0 {
		return errors.New("the queue does not show what was recorded")
	}
	return nil
}

// admit counts letters, or refuses them.
func (q *Queue) admit(vm gateway.ID, letters []letter) (*lane, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lane(vm)
	var bytes int64
	for _, m := range letters {
		bytes += m.bytes
	}
	if bytes > q.config.Limits.WaitingBytes {
		return nil, gateway.Invalid("%d bytes for %d recipients are more than the queue of a VM has room for", bytes, len(letters)).
			WithHint("Send it to fewer recipients at once.")
	}
	if l.letters+len(letters) > q.config.Limits.Waiting || l.bytes+bytes > q.config.Limits.WaitingBytes {
		return nil, gateway.Errorf(gateway.KindNoSpace, "too much mail of the VM waits to be sent").WithHint("Try again when some of it is sent.")
	}
	l.letters += len(letters)
	l.bytes += bytes
	return l, nil
}

// check checks what the submitter has checked already, where a mistake would be a remote's trouble.
func (q *Queue) check(m Message) error {
	switch {
	case !m.VM.Known():
		return gateway.Invalid("the sender of the message is unknown")
	case len(m.To) == 0:
		return gateway.Invalid("the message has no recipients")
	case len(m.To) > q.config.Limits.Recipients:
		return gateway.Invalid("%d recipients", len(m.To)).WithHint("A message has at most %d.", q.config.Limits.Recipients)
	}
	if m.From != "" {
		if err := checkAddress(m.From, m.UTF8); err != nil {
			return err
		}
	}
	for _, to := range m.To {
		if err := checkAddress(to, m.UTF8); err != nil {
			return err
		}
		if domain := domainOf(to); domain == q.config.Domain || strings.HasSuffix(domain, "."+q.config.Domain) {
			return gateway.Invalid("%.254q is on this host", to)
		}
	}
	return nil
}

// checkAddress checks that an address is one on the wire and in a report, whatever a remote makes of it.
func checkAddress(address string, utf8 bool) error {
	at := strings.LastIndexByte(address, '@')
	bad := strings.ContainsFunc(address, func(c rune) bool {
		return c < ' ' || c == 0x7f || c == '<' || c == '>' || c > '~' && !utf8 || c == '\uFFFD'
	})
	if at < 1 || at == len(address)-1 || len(address) > maxAddressBytes || bad {
		return gateway.Invalid("%.254q is no mail address", address)
	}
	if domain := address[at+1:]; strings.ContainsAny(domain, " []:\\\"") {
		return gateway.Invalid("%.254q has no domain that DNS can have", address)
	}
	return nil
}

// stage copies a message to the store and signs it.
func (q *Queue) stage(ctx context.Context, staged *mailbox.Staged, m Message) (bytes int64, signatures string, err error) {
	s, err := q.keys.sign(cmp.Or(m.Signer, q.config.Domain))
	if err != nil {
		return 0, "", err
	}
	defer s.abort()
	buf := make([]byte, 32<<10)
	for {
		n, err := m.Body.Read(buf)
		bytes += int64(n)
		if bytes > q.config.Limits.MessageBytes {
			return 0, "", gateway.Invalid("the message is larger than %d bytes", q.config.Limits.MessageBytes)
		}
		if err := s.write(buf[:n]); err != nil {
			return 0, "", err
		}
		if _, err := staged.Write(buf[:n]); err != nil {
			return 0, "", err
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, "", fmt.Errorf("read message: %w", err)
		}
	}
	signatures, err = s.finish()
	return bytes, signatures, err
}

// record is the first line of a letter's head. The line ends it; signatures and the message follow.
type record struct {
	From string           `json:"from"`
	UTF8 bool             `json:"utf8,omitempty"`
	VM   gateway.Identity `json:"vm"`
}

func (r record) encode() (string, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode record: %w", err)
	}
	return string(line) + "\r\n", nil
}

// maxRecordBytes is more than a record has.
const maxRecordBytes = 8 << 10

// openRecord reads the record, and returns the message behind it.
func openRecord(content *mailbox.Content) (r record, message *io.SectionReader, err error) {
	buf := make([]byte, min(maxRecordBytes, content.Size()))
	if _, err := content.ReadAt(buf, 0); err != nil {
		return r, nil, fmt.Errorf("read record: %w", err)
	}
	line, _, ok := strings.Cut(string(buf), "\r\n")
	if !ok {
		return r, nil, errors.New("read record: the message has none")
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return r, nil, fmt.Errorf("read record: %w", err)
	}
	skip := int64(len(line) + 2)
	return r, io.NewSectionReader(content, skip, content.Size()-skip), nil
}

// countDigits is how much of a letter's queue id counts the letters of a message.
const countDigits = 4

// letterID returns the queue id of the i-th letter of a message.
func letterID(base string, i int) string {
	count := strconv.FormatInt(int64(i), 32)
	return base[:len(base)-countDigits] + strings.Repeat("0", countDigits-len(count)) + count
}

// messageOf returns what the queue ids of a message's letters have in common.
func messageOf(queueID string) string { return queueID[:max(0, len(queueID)-countDigits)] }
