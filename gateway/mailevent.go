package gateway

import "time"

// MailEventKind is what happened to a message.
type MailEventKind string

// The kinds. Of a refused message nothing is kept; of the others one event follows the other.
const (
	MailReceived  MailEventKind = "received"  // safe on the host's disk
	MailRefused   MailEventKind = "refused"   // with Reply: mail for the VM, or of it
	MailDelivered MailEventKind = "delivered" // the VM has it
	MailParked    MailEventKind = "parked"    // the VM could not take it, for Reply; it is tried again
	MailQueued    MailEventKind = "queued"    // the VM's own, on the host's disk, to go to others
	MailSent      MailEventKind = "sent"      // the recipient's server has accepted it
	MailDelayed   MailEventKind = "delayed"   // that server has not, for Reply; it is tried again
	MailFailed    MailEventKind = "failed"    // given up, for Reply
)

// MailEvent is a line of the log of a VM's mail. What strangers wrote is cut, and has no control characters.
type MailEvent struct {
	Time    time.Time     `json:"time"` // in milliseconds
	Kind    MailEventKind `json:"event"`
	QueueID string        `json:"queue_id,omitempty"`
	From    string        `json:"from,omitempty"` // of the envelope; none for a bounce
	To      string        `json:"to,omitempty"`
	Remote  string        `json:"remote,omitempty"` // the address of who sent it, or the server that it was sent to
	Bytes   int64         `json:"bytes,omitempty"`
	Reply   string        `json:"reply,omitempty"` // of SMTP, or why the VM did not take it
}

// MailboxState is how much mail there is for a VM, or for postmaster.
type MailboxState struct {
	Name     string    `json:"name"`
	Messages int       `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Waiting  int       `json:"waiting"`         // messages that are not in the VM
	Oldest   time.Time `json:"oldest,omitzero"` // when the oldest of these was received
	Queued   int       `json:"queued"`          // recipients outside whose mail waits
	Error    string    `json:"error,omitempty"` // why nothing is known of the mailbox
}

// MailRedelivery names messages that are delivered into their VM again, by one of queue_ids and since.
type MailRedelivery struct {
	QueueIDs []string  `json:"queue_ids,omitempty"` // 1 to 10000, which must all exist
	Since    time.Time `json:"since,omitzero"`      // those received at or after it
}

// Check reports what is wrong with the choice; KindInvalid.
func (r MailRedelivery) Check() error {
	const limit = 10_000
	if (len(r.QueueIDs) > 0) != r.Since.IsZero() || len(r.QueueIDs) > limit {
		return Invalid("not a choice of messages to deliver again: expected one of queue_ids, at most %d, and since", limit).
			WithHint("lodge mail redeliver --help shows both.")
	}
	return nil
}

// MailRedelivered is how many messages are delivered again; those that wait anyway are counted too.
type MailRedelivered struct {
	Messages int `json:"messages"`
}

// QueuedMail is a letter that waits to leave the host: a message for one recipient.
type QueuedMail struct {
	VM       string    `json:"vm"`
	QueueID  string    `json:"queue_id"`
	To       string    `json:"to"`
	Bytes    int64     `json:"bytes"`
	Queued   time.Time `json:"queued"`
	Attempts int       `json:"attempts"`         // since lodged has started
	Next     time.Time `json:"next,omitzero"`    // of the next attempt; none while one is made, or when it is due
	Reply    string    `json:"reply,omitempty"`  // of the last attempt: the server's reply, or why there was none
	Server   string    `json:"server,omitempty"` // which gave it
}

// QueueChange is one of retry and remove, on letters of queue_ids or on all.
type QueueChange struct {
	QueueIDs []string `json:"queue_ids,omitempty"` // at most 10000
	Retry    bool     `json:"retry,omitempty"`     // now
	Remove   bool     `json:"remove,omitempty"`    // without a report to the sender
}

// QueueChanged is how many letters were changed.
type QueueChanged struct {
	Letters int `json:"letters"`
}
