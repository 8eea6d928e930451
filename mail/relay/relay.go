// Package relay keeps what leaves the host in a queue until other servers have it.
//
// A message is signed as it comes in (DKIM), and appended to a log of its VM, one letter per recipient:
// Send returns once all are synced. The log is a mailbox of package mailbox, so kill -9 loses nothing. The
// letters of one message that go the same way are an item; a VM's items for one destination are a road,
// which has one connection at a time; the roads of a VM are a lane. Lanes have turns, VMs and destinations
// have limits, so that mail that waits or hangs delays its own VM alone.
//
// A recipient's letter is expunged after the server's 250, or after a report to the sender is synced
// (RFC 3464). It is sent a second time only if the answer was lost, or this host before it was recorded.
//
// Mail goes to the smarthost, in verified TLS, or to the servers that DNS has (RFC 5321 §5.1), in TLS if
// they have it, verified or not (RFC 7435), and verified if the domain has a policy (MTA-STS, RFC 8461). It
// never goes to this host, its guests or its private networks.
package relay

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/gateway/limit"
	"lodge/mail/journal"
	"lodge/mail/mailbox"
)

// Resolver asks DNS; verdict.Resolver is one. A name without records of the kind is a *net.DNSError with
// IsNotFound, all other errors are temporary.
type Resolver interface {
	Ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error)
}

// Config is what a Queue needs. All fields but Smarthost, Refuse, Known, Arrived and Journal must be set.
type Config struct {
	Dir       string         // of the queue and the keys; created if missing; one process at a time
	Domain    string         // the name of this host, and d= of its signatures
	Mailboxes *mailbox.Store // where reports on failed mail go
	Resolver  Resolver
	Smarthost *Smarthost     // nil: the servers that DNS has
	Refuse    []netip.Prefix // nothing is sent there, whatever DNS has: the guests' net
	// ServesKeys: a name server at Domain has the keys, if _domainkey.<Domain> is delegated to it.
	ServesKeys bool
	// Known reports whether a VM exists; what others have in the queue is removed. nil: all exist.
	Known func(gateway.ID) bool
	// Arrived is called for each VM that gets a report, after it is synced to disk. It must return at
	// once; nil: nothing is done.
	Arrived func(gateway.ID)
	Journal *journal.Journal // gets what becomes of mail; nil: it is not recorded
	Limits  Limits
	Times   Times
	Logger  *slog.Logger

	port   string         // of other servers; "": 25
	inside bool           // servers may be on this host: for tests
	roots  *x509.CertPool // of policies, and of servers that they name; nil: those of the system
	dial   dialer         // to the servers of policies; nil: by DNS
}

// Limits bound what is held and what is sent.
type Limits struct {
	MessageBytes int64 // of one message
	Recipients   int   // of one message
	Waiting      int   // recipients whose mail waits, per VM
	WaitingBytes int64 // of these, counted once for each recipient

	Connections       int // at once
	ConnectionsOfVM   int
	ConnectionsOfDest int
	PerConnection     int // messages, before others have a turn

	Rate, RateOfVM, RateOfDest    rate.Limit // messages per second
	Burst, BurstOfVM, BurstOfDest int
}

// DefaultLimits suit a host with a hundred VMs that send what programs send.
func DefaultLimits() Limits {
	return Limits{
		MessageBytes: 50 << 20, Recipients: 100, Waiting: 10_000, WaitingBytes: 2 << 30,
		Connections: 64, ConnectionsOfVM: 16, ConnectionsOfDest: 4, PerConnection: 50,
		Rate: 50, RateOfVM: 2, RateOfDest: 10, Burst: 500, BurstOfVM: 200, BurstOfDest: 100,
	}
}

// Times are the times of RFC 5321 §4.5.3.2 and §4.5.4.1.
type Times struct {
	RetryMin time.Duration // the first pause after a failure; it doubles
	RetryMax time.Duration
	Delayed  time.Duration // after which the sender gets a note, once
	GiveUp   time.Duration
	Connect  time.Duration // for TCP, one address
	Command  time.Duration // for one reply
	Final    time.Duration // for the reply to a message
	Grace    time.Duration // for the messages on their way when Run ends
}

// DefaultTimes are the usual ones.
func DefaultTimes() Times {
	return Times{
		RetryMin: time.Minute, RetryMax: 4 * time.Hour, Delayed: 4 * time.Hour, GiveUp: 5 * 24 * time.Hour,
		Connect: 30 * time.Second, Command: 2 * time.Minute, Final: 10 * time.Minute, Grace: 5 * time.Second,
	}
}

// Queue has the mail that leaves the host. Make it with New, run Run, and end it with Close. It is safe
// for concurrent use.
type Queue struct {
	config   Config
	store    *mailbox.Store
	keys     keys
	policies *policies

	mu          sync.Mutex
	lanes       map[gateway.ID]*lane
	order       []*lane // of turns
	turn        int
	dests       map[string]*rate.Limiter
	all         *rate.Limiter
	connections *limit.Limit[gateway.ID]
	perDest     *limit.Limit[string]
	until       time.Time                   // no worker begins before: the rate of all is used up
	unread      map[gateway.ID]func() error // what is on disk and not in lanes yet; each is read once
	begin       func(*road)                 // starts a worker; nil while Run does not run

	sent, failed atomic.Uint64
}

// New opens the queue, and makes the keys if there are none. What waits in it is read by Run, so that a long queue
// delays no start. Nothing is sent yet.
func New(config Config) (*Queue, error) {
	if config.port == "" {
		config.port = "25"
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make queue directory: %w", err)
	}
	if err := durable.Sync(filepath.Dir(config.Dir)); err != nil {
		return nil, err
	}
	keys, err := loadKeys(config.Dir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(config.Dir, "queue")
	store, err := mailbox.Open(dir, config.Logger)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	l := config.Limits
	q := &Queue{
		config: config, store: store, keys: keys,
		lanes: map[gateway.ID]*lane{}, dests: map[string]*rate.Limiter{}, all: rate.NewLimiter(l.Rate, l.Burst),
		connections: limit.New[gateway.ID](l.ConnectionsOfVM, l.Connections), perDest: limit.New[string](l.ConnectionsOfDest, 0),
	}
	dial := config.dial
	if dial == nil {
		dial = q.dialWeb
	}
	q.policies = newPolicies(config.Resolver, dial, config.roots)
	if err := q.find(dir); err != nil {
		store.Close()
		return nil, fmt.Errorf("open queue: %w", err)
	}
	return q, nil
}

// Run sends what waits until ctx ends, then lets the messages on their way finish for Times.Grace. Call
// it once.
func (q *Queue) Run(ctx context.Context) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var workers sync.WaitGroup
	q.mu.Lock()
	q.begin = func(r *road) { workers.Go(func() { q.work(ctx, hard, r) }) }
	q.dispatch()
	q.mu.Unlock()
	q.readAll(ctx)
	<-ctx.Done()
	q.mu.Lock()
	q.begin = nil
	q.mu.Unlock()
	time.AfterFunc(q.config.Times.Grace, cut)
	workers.Wait()
	return nil
}

// Close closes the queue's files. Run must have ended.
func (q *Queue) Close() { q.store.Close() }

// Remove deletes what a VM has in the queue. A message on its way may still arrive.
func (q *Queue) Remove(id gateway.ID) error {
	q.mu.Lock()
	delete(q.unread, id)
	q.drop(id)
	q.mu.Unlock()
	return q.store.Remove(id)
}

// Sent is the number of recipients whose server has accepted a message since the start; Failed is that of
// those whose mail was given up.
func (q *Queue) Sent() uint64 { return q.sent.Load() }

// Failed is described at Sent.
func (q *Queue) Failed() uint64 { return q.failed.Load() }

// Waiting is the number of recipients whose mail waits, once Run has read the queue.
func (q *Queue) Waiting() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.order {
		n += l.letters
	}
	return n
}
