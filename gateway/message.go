package gateway

import "time"

// Message is one mail in a VM's mailbox on the host, as lists show it.
type Message struct {
	QueueID   string    `json:"queue_id"`        // never used again on this host; also the file name in the guest's Maildir
	UID       uint32    `json:"uid"`             // IMAP UID (RFC 9051 §2.3.1.1)
	From      string    `json:"from"`            // envelope sender; empty for a bounce
	Rcpt      string    `json:"rcpt"`            // envelope recipient
	Subject   string    `json:"subject"`         // decoded, one line, at most 200 bytes
	Bytes     int64     `json:"bytes"`           // size of the message with its trace headers
	Received  time.Time `json:"received"`        // when it was accepted
	Delivered bool      `json:"delivered"`       // the copy in the guest is on the guest's disk
	Error     string    `json:"error,omitempty"` // why it is not delivered yet, by the last attempt; at most 303 bytes, with text of the guest
}

// MailRemoval names messages of a mailbox to remove, by one of queue_ids, all and before.
type MailRemoval struct {
	QueueIDs []string  `json:"queue_ids,omitempty"` // 1 to 10000, which must all exist
	All      bool      `json:"all,omitempty"`
	Before   time.Time `json:"before,omitzero"`   // those received before it
	Waiting  bool      `json:"waiting,omitempty"` // also those that are not in the VM yet, and then never will be; else one of them is a conflict
}

// MailRemoved is what was removed, on disk.
type MailRemoved struct {
	Messages int   `json:"messages"`
	Waiting  int   `json:"waiting"` // messages that were not in the VM
	Bytes    int64 `json:"bytes"`   // of all messages together
}

// Postmaster stands for this host's operator: mail for the domain itself is in the mailbox of this ID,
// which no VM has (NewID makes version 4). Its name is reserved.
func Postmaster() Identity { return Identity{ID: ID{15: 1}, Name: "postmaster"} }

// SSHAccess is how the host's users log in to a VM: with a key that only the daemon can read.
type SSHAccess struct {
	Addr          string `json:"addr"`            // IPv4 address, port 22
	User          string `json:"user"`            // GuestUser
	PublicKeyFile string `json:"public_key_file"` // the host's public key; IdentityFile of ssh_config(5)
	AgentSocket   string `json:"agent_socket"`    // of the ssh-agent that has the private key; IdentityAgent
	KnownHosts    string `json:"known_hosts"`     // one known_hosts line that pins the guest's key under Addr
}
