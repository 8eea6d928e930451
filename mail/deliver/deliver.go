// Package deliver brings each VM's mail into the VM: into ~/Maildir of its login user, or by another Route
// of its settings.
//
// The mailbox on the host is the record; what is in the VM is a replica with a cursor. One worker per VM
// gives the messages behind the cursor to a Route, in rounds of 16, and moves the cursor over those
// that the guest has. A failure delays that VM's mail only: the worker retries after a growing pause,
// when the VM's record changes (as it does at each start), and when new mail comes. Nothing is ever
// bounced.
//
// A message is parked if the guest refuses it for good, if it is damaged, or if it fails while a later
// one is delivered: the cursor goes over it, and it is retried on a clock of its own, whose pauses grow
// to an hour. Mail behind it keeps its order. A round that fails as a whole parks nothing; the next one
// tries other messages behind the first.
//
// In the Maildir a message is written as tmp/<queue id>, synced, linked to new/<queue id>, and renamed
// to tmp/<queue id>.done, which is unlinked once the cursor is synced on the host; the directory new is
// synced before. The file is the message byte for byte as IMAP and the host show it: trace headers on
// top, lines ending in CRLF as they came. A crash at any time gives no second copy, except between link
// and rename, and only if a mail reader has moved the file to cur before the next attempt, under a name
// with more than the flags of the Maildir's own rules. What a crash of the daemon leaves in tmp stays until
// the next message, and a .done of a message that was parked for ever.
package deliver

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/mail/journal"
	"lodge/mail/mailbox"
)

// Config is what a Replica needs. All fields but Journal must be set.
type Config struct {
	Domain    string // VMs have mail at <vm>.<Domain>; the host's name in SMTP
	Store     *mailbox.Store
	Directory *gateway.Directory
	KeyFile   string                                                                 // the host's private SSH key; read at every connect
	Dial      func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) // to the VM alone
	Objects   Objects                                                                // for routes into buckets; nil: these lead nowhere
	Times     Times
	Journal   *journal.Journal // gets what was delivered and parked; nil: it is not recorded
	Logger    *slog.Logger
}

// Times are the timeouts of the workers.
type Times struct {
	Connect  time.Duration // for TCP, SSH and SFTP together
	Step     time.Duration // for one request of SFTP, SMTP or HTTP, or 32 KiB of a message
	Verdict  time.Duration // until an SMTP server answers for a message (RFC 5321 §4.5.3.2.6)
	RetryMin time.Duration // the first pause after a failure; it doubles
	RetryMax time.Duration
	// ParkedMax is the longest pause of a message that is parked; the first is RetryMin.
	ParkedMax time.Duration
	Idle      time.Duration // an unused connection is closed after this
}

// DefaultTimes suit guests on this host.
func DefaultTimes() Times {
	return Times{
		Connect: time.Minute, Step: time.Minute, Verdict: 10 * time.Minute, RetryMin: time.Second, RetryMax: time.Minute, ParkedMax: time.Hour,
		Idle: 10 * time.Minute,
	}
}

// Replica runs one worker per VM.
type Replica struct {
	config    Config
	delivered atomic.Uint64

	mu      sync.Mutex
	workers map[gateway.ID]*worker
	turns   map[gateway.ID]*turn
	wait    sync.WaitGroup
}

// New returns a Replica; Run starts it.
func New(config Config) *Replica {
	return &Replica{config: config, workers: map[gateway.ID]*worker{}, turns: map[gateway.ID]*turn{}}
}

// Delivered is the number of messages copied into guests since the start.
func (r *Replica) Delivered() uint64 { return r.delivered.Load() }

// Explain sets the Error of the messages of a VM's list that wait after a failed attempt.
func (r *Replica) Explain(id gateway.ID, list []gateway.Message) {
	r.mu.Lock()
	w := r.workers[id]
	r.mu.Unlock()
	for i := range list {
		if w == nil || list[i].Delivered {
			continue
		}
		if err := w.why(list[i].UID); err != nil {
			list[i].Error = shorten(err.Error())
		}
	}
}

// Retry makes all that waits of a VM due now, also what mailbox.Box.Redeliver has parked.
func (r *Replica) Retry(id gateway.ID) {
	r.mu.Lock()
	w := r.workers[id]
	r.mu.Unlock()
	if w != nil {
		w.parked.reload()
		w.wakeUp()
	}
}

// Run delivers until ctx ends, then waits for its workers.
func (r *Replica) Run(ctx context.Context) error {
	r.config.Directory.Watch(func(old, m gateway.VM) { r.follow(ctx, old.ID, m) })
	for _, m := range r.config.Directory.All() {
		r.follow(ctx, m.ID, m)
	}
	<-ctx.Done()
	r.mu.Lock()   // ctx is done, so follow starts no worker after this
	r.mu.Unlock() //nolint:staticcheck // an empty critical section is the point
	r.wait.Wait()
	return nil
}

// follow starts, wakes or stops a VM's worker when the VM changes.
func (r *Replica) follow(ctx context.Context, id gateway.ID, m gateway.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Known() {
		id = m.ID
	}
	w, running := r.workers[id]
	switch {
	case ctx.Err() != nil:
	case !m.Known() || m.Desired == gateway.Removed:
		if running {
			w.cancel()
			delete(r.workers, id)
			delete(r.turns, id)
		}
	case running:
		w.wakeUp()
	default:
		ctx, cancel := context.WithCancel(ctx)
		w := &worker{
			delivered: &r.delivered, turn: r.turnOf(id),
			config: r.config, id: id, cancel: cancel, wake: make(chan struct{}, 1), errors: map[uint32]error{},
			logger: r.config.Logger.With(gateway.LogVM(m.Identity)),
		}
		r.workers[id] = w
		r.wait.Go(func() { w.run(ctx) })
	}
}
