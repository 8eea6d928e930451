package inbound

import (
	"log/slog"
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
	"lodge/mail/smtpd"
	"lodge/mail/verdict"
)

// maxFirstBytes of a message are kept in memory to find its subject.
const maxFirstBytes = 32 << 10

// message is an smtpd.Message. Its bytes are staged on disk.
type message struct {
	policy   *Policy
	client   smtpd.Client
	envelope smtpd.Envelope
	staged   *mailbox.Staged
	filter   *verdict.Filter
	begun    time.Time
	bytes    int64
	first    []byte // of maxFirstBytes at most
	author   string // its address in From, if that is proven
}

// Write implements smtpd.Message.
func (m *message) Write(p []byte) (int, error) {
	n, err := m.filter.Write(p)
	m.bytes += int64(n)
	if room := maxFirstBytes - len(m.first); room > 0 {
		m.first = append(m.first, p[:min(n, room)]...)
	}
	return n, refusal(err)
}

// Commit implements smtpd.Message. It returns once the message is synced to disk.
func (m *message) Commit() (string, error) {
	results, err := m.judge()
	if err != nil {
		return "", err
	}
	letters := m.letters(time.Now(), results)
	if err := m.policy.StillExist(m.envelope.To); err != nil {
		return "", err
	}
	undo, err := m.policy.TakeBytes(letters, m.filter.Size())
	if err != nil {
		return "", err
	}
	m.recordSender()
	if err := m.policy.config.Store.Commit(m.staged, letters); err != nil {
		undo()
		return "", BoxReply(err)
	}
	m.staged.Remove()
	m.policy.accepted.Add(uint64(len(letters)))
	log := m.log()
	for i, l := range letters { // one for each recipient
		bytes := m.filter.Size() + int64(len(l.Head))
		log.Info("message accepted", "rcpt", l.Rcpt, gateway.LogVM(m.envelope.To[i].VM), "queue_id", l.QueueID, "bytes", bytes)
		m.policy.config.Journal.Add(l.VM, gateway.MailEvent{
			Kind: gateway.MailReceived, QueueID: l.QueueID, From: l.From, To: l.Rcpt, Remote: m.client.Remote, Bytes: bytes,
		})
	}
	m.arrived()
	return letters[0].QueueID, nil
}

// arrived reports the message, once for each VM.
func (m *message) arrived() {
	if m.policy.config.Arrived != nil {
		m.eachVM(func(vm gateway.Identity) { m.policy.config.Arrived(vm.ID) })
	}
}

// recordSender records a sender that is proven, so that the VMs may answer. Reports have a sender that is not
// to be answered (RFC 5321 §4.5.5). It is done before the 250; a message is worth more than its contact, so
// it is accepted if that fails.
func (m *message) recordSender() {
	if m.policy.config.Contacts == nil || m.author == "" || m.envelope.From == (smtpd.Path{}) {
		return
	}
	m.eachVM(func(vm gateway.Identity) {
		if err := m.policy.config.Contacts.Wrote(vm.ID, m.author, time.Now()); err != nil {
			m.log().Warn("sender not recorded", gateway.LogVM(vm), "err", err)
		}
	})
}

// eachVM calls f once for each VM that gets the message.
func (m *message) eachVM(f func(gateway.Identity)) {
	called := map[gateway.ID]bool{}
	for _, to := range m.envelope.To {
		if !called[to.VM.ID] && to.VM != gateway.Postmaster() {
			called[to.VM.ID] = true
			f(to.VM)
		}
	}
}

func (m *message) letters(now time.Time, results string) []mailbox.Letter {
	subject := Subject(m.first)
	letters := make([]mailbox.Letter, 0, len(m.envelope.To))
	t := trace{
		helo: m.client.Helo, remote: m.client.Remote, by: m.policy.config.Domain,
		with: m.client.Protocol(m.envelope.UTF8), now: now, results: results,
	}
	from := m.envelope.From.String()
	for _, to := range m.envelope.To {
		id := mailbox.NewQueueID(now)
		letters = append(letters, mailbox.Letter{
			VM: to.VM.ID, QueueID: id, From: from, Rcpt: to.Path.String(), Subject: subject,
			Head: t.head(id, from, to.Path.String()), Received: now,
		})
	}
	return letters
}

// Abort implements smtpd.Message.
func (m *message) Abort(err error) {
	m.staged.Remove()
	m.log().Warn("message not accepted", "bytes", m.bytes, "status", smtpd.ReplyTo(err).Code, "err", err)
	m.refused(err)
}

// refused records that no recipient gets the message.
func (m *message) refused(err error) {
	for _, to := range m.envelope.To {
		m.policy.refused(to.VM, m.client, m.envelope, to.Path, err)
	}
}

func (m *message) log() *slog.Logger {
	return m.policy.config.Logger.With("remote", m.client.Remote, "from", m.envelope.From.String(), "duration", time.Since(m.begun))
}
