// Package api is the one set of verbs with which callers administer the host: caller + verb + arguments → answer or error.
//
// A face (the unix socket of gateway/control is the first) finds out who its caller is and calls API.As, which returns the
// API as that caller may use it: a Session. Each verb is a method of Session. It asks Caller.may, the one place that
// decides who may do what, finds the VM by its name, and calls one small interface that vmhost, mail or https satisfies.
// Long work reports its steps to a function; consoles, logs and messages are streams that the caller closes. Work
// that lasts ends when the caller may no longer ask for it.
//
// This package does not depend on the face that called it, never writes to a connection and never logs what it answers.
package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Machines makes and changes VMs; vmhost.Host is one.
type Machines interface {
	// New makes a VM and starts it; progress may be called from any goroutine until New returns. After an error, or when ctx
	// ends, nothing of the VM is left.
	New(ctx context.Context, spec gateway.Spec, progress func(gateway.Progress)) (gateway.VM, error)
	// Start returns when the VM runs, Stop when it does not; force ends it without asking the guest.
	Start(ctx context.Context, id gateway.ID) error
	Stop(ctx context.Context, id gateway.ID, force bool) error
	Restart(ctx context.Context, id gateway.ID) error
	// Remove deletes the VM and all that is kept for it.
	Remove(ctx context.Context, id gateway.ID) error
}

// Observer looks at VMs; vmhost.Host is one.
type Observer interface {
	Status(ctx context.Context, id gateway.ID) gateway.Status
	// Statuses is Status for all VMs, within a few seconds whatever libvirtd does.
	Statuses(ctx context.Context) map[gateway.ID]gateway.Status
	// Wait returns when the guest's sshd answers; progress gets the phases "kernel" and "ssh".
	Wait(ctx context.Context, id gateway.ID, progress func(gateway.Progress)) error
}

// Terminals look into VMs; vmhost.Host has them.
type Terminals interface {
	// Console is the VM's serial console. The caller closes it.
	Console(ctx context.Context, id gateway.ID) (net.Conn, error)
	// Log is the output of the console since the VM was made; with follow it continues until ctx ends. The caller closes it.
	Log(ctx context.Context, id gateway.ID, follow bool) (io.ReadCloser, error)
	SSH(id gateway.ID) (gateway.SSHAccess, error)
}

// Examiner looks for what was changed in VMs; vmhost.Host is one. KindConflict: the VM is neither on nor off,
// or its image is of an earlier version of Lodge.
type Examiner interface {
	// Changes returns what was changed from one moment to another.
	Changes(ctx context.Context, id gateway.ID, q gateway.ChangesQuery) (gateway.Changes, error)
	// History returns what was changed from checkpoint to checkpoint, and from the last to now.
	History(ctx context.Context, id gateway.ID, last int) ([]gateway.HistoryStep, error)
	// Recipe returns cloud-init user data that makes the same changes to a new VM; with objects it fetches large files.
	Recipe(ctx context.Context, id gateway.ID, objects bool) (gateway.Recipe, error)
	// RecipeFile writes the content of a large file of a recipe to w.
	RecipeFile(ctx context.Context, id gateway.ID, o gateway.RecipeObject, w io.Writer) error
}

// Mailbox reads and removes VMs' mail; mail.Server is one.
type Mailbox interface {
	// DNSRecords are those that the mail of a VM's own domain needs; for "", that of this host. KindConflict: this
	// host sends none.
	DNSRecords(own string) ([]gateway.DNSRecord, error)
	// List returns the newest messages, at most limit, newest first.
	List(ctx context.Context, id gateway.ID, limit int) ([]gateway.Message, error)
	// Open reads one message as it is stored (RFC 5322). The caller closes it.
	Open(ctx context.Context, id gateway.ID, queueID string) (io.ReadCloser, error)
	// RemoveMessages removes messages, durably. If one does not exist (KindNotFound) or waits (KindConflict), none is
	// removed.
	RemoveMessages(ctx context.Context, id gateway.ID, r gateway.MailRemoval) (gateway.MailRemoved, error)
	// State is how much mail there is; vm may be gateway.Postmaster.
	State(ctx context.Context, vm gateway.Identity) (gateway.MailboxState, error)
}

// MailDesk looks for VMs' mail and at what became of it; mail.Server is one. The ID may be that of gateway.Postmaster.
type MailDesk interface {
	// Search returns the newest messages that fit all terms, at most limit, the newest first.
	Search(ctx context.Context, id gateway.ID, terms []string, limit int) ([]gateway.Message, error)
	// Redeliver delivers messages into their VM again. KindNotFound: one of the queue ids does not exist.
	Redeliver(ctx context.Context, id gateway.ID, r gateway.MailRedelivery) (gateway.MailRedelivered, error)
	// MailLog returns what became of the VM's mail, the newest event first, at most limit.
	MailLog(ctx context.Context, id gateway.ID, limit int) ([]gateway.MailEvent, error)
	// Outgoing returns the letters that wait to leave the host, of a VM or of all for the zero ID, the oldest first.
	Outgoing(ctx context.Context, id gateway.ID, limit int) ([]gateway.QueuedMail, error)
	// ChangeOutgoing retries or removes such letters.
	ChangeOutgoing(ctx context.Context, id gateway.ID, c gateway.QueueChange) (gateway.QueueChanged, error)
}

// Objects are what VMs keep in S3; storage.Server has them.
type Objects interface {
	// Usage returns what a VM has stored, and of that each bucket.
	Usage(ctx context.Context, id gateway.ID) (all gateway.S3Usage, buckets map[string]gateway.S3Usage, err error)
	// UsageBelow counts the objects of a bucket below a prefix. It reads all their records. KindNotFound: there is no such
	// bucket.
	UsageBelow(ctx context.Context, id gateway.ID, bucket, prefix string) (gateway.S3Usage, error)
	// Damage reads all that a VM has stored, or for the zero ID that all have, and returns what is
	// damaged.
	Damage(ctx context.Context, id gateway.ID) ([]gateway.S3Damage, error)
}

// Notices sends mail of the host itself; mail.Server does.
type Notices interface {
	// Notify returns once the notice is on disk, to be sent. KindConflict: this host sends none, or none to that address;
	// KindUnavailable: there were too many.
	Notify(ctx context.Context, n gateway.Notice) error
}

// Web has VMs' pages; https.Server is one.
type Web interface {
	// LoginURL makes a link that logs a person in, once: to a VM's pages or, for the zero ID, to the host's
	// own domain.
	LoginURL(ctx context.Context, id gateway.ID, person gateway.Principal) (string, error)
	URL(m gateway.VM, port uint16) string
	// RequestURL is the page at which a request for access is answered.
	RequestURL(id string) string
	// RootPEM is the certificate of the host's own CA.
	RootPEM() []byte
	// DomainURL is the address of a custom domain, and whether there is a certificate for it.
	DomainURL(domain string) (url string, certified bool)
}

// Ports looks at what listens in VMs now; https.Server is one.
type Ports interface {
	// Probe returns the port that the VM's own name leads to, if anything listens there.
	Probe(ctx context.Context, m gateway.VM) (port uint16, ok bool)
	// Listening returns those of ports where something listens.
	Listening(ctx context.Context, m gateway.VM, ports []uint16) []uint16
}

// Forwarder leads ports of the host to VMs; forward.Server is one.
type Forwarder interface {
	// Add opens the port and records it, or neither.
	Add(ctx context.Context, f gateway.Forward) (gateway.ForwardStatus, error)
	Remove(ctx context.Context, port gateway.HostPort) error
	// List returns the forwards, ordered by port.
	List() []gateway.ForwardStatus
}

// Config is what an API needs. Every field but S3Quota and Ready is required.
type Config struct {
	Directory   *gateway.Directory
	People      *people.Book
	Requests    *people.Requests
	Keyring     *gateway.Keyring
	Machines    Machines
	Observer    Observer
	Terminals   Terminals
	Examiner    Examiner
	Mailbox     Mailbox
	MailDesk    MailDesk
	Notices     Notices
	Objects     Objects
	Web         Web
	Passes      Passes
	Ports       Ports
	Images      Images
	Checkpoints Checkpoints
	Forwarder   Forwarder
	Domains     Domains
	Doctor      Doctor
	Domain      string       // below which VMs have their names
	S3URL       string       // where S3 is for clients outside of VMs
	S3Quota     int64        // bytes that a VM may store in S3 by default; 0: no limit
	Version     string       // of this daemon
	Logger      *slog.Logger // of changes of who may do what; answers are never logged
	Ready       func() error
}

// API has the verbs. It is safe for concurrent use; make one with New.
type API struct {
	Config
	lasting   lasting
	answering sync.Mutex // held while a request for access is answered: it is answered once
}

// New returns an API, which follows the changes of Directory and People from then on.
func New(config Config) *API {
	a := &API{Config: config, lasting: lasting{calls: map[*lastingCall]struct{}{}}}
	config.Directory.Watch(func(_, _ gateway.VM) { a.lasting.decide() })
	config.People.Watch(a.lasting.decide)
	return a
}

// Session is the API as one caller may use it. Its verbs fail with KindDenied where the caller may not use them; a VM that
// the caller may not see is denied as well, whether it exists or not.
type Session struct {
	api    *API
	caller Caller
}

// As returns the API as caller may use it.
func (a *API) As(caller Caller) Session { return Session{a, caller} }

// allowed fails with KindDenied unless the caller may use v on the host itself.
func (s Session) allowed(v verb) error {
	if !s.may(v, gateway.VM{}) {
		return errDenied(v)
	}
	return nil
}

// vm finds the VM that has a name now, for a verb that the caller may use on it.
func (s Session) vm(v verb, name string) (gateway.VM, error) {
	m, ok := s.api.Directory.ByName(name)
	if !s.may(v, m) {
		return gateway.VM{}, errDenied(v)
	}
	if !ok {
		return gateway.VM{}, gateway.NotFound(name)
	}
	return m, nil
}

// update changes a VM on which the caller may use v still: what was asked before slow work may have changed.
func (s Session) update(ctx context.Context, v verb, id gateway.ID, change func(*gateway.VM) error) (gateway.VM, error) {
	return s.api.Directory.Update(ctx, id, func(m *gateway.VM) error {
		if !s.may(v, *m) {
			return errDenied(v)
		}
		return change(m)
	})
}
