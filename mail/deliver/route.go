package deliver

import (
	"context"
	"io"

	"lodge/gateway"
)

// Route is a way into one VM, which is not trusted: its answers have limits and timeouts.
type Route interface {
	// Deliver returns once the guest has the message on its disk, or has taken the duty for it; a settler's only
	// with the next Settle. It may be called for several messages at once. After any error the route is closed, and opened again for the next attempt.
	Deliver(ctx context.Context, m Message) error
	// Close ends it without waiting for the guest.
	Close()
}

// recorder is a Route that keeps a mark of a message in the guest until the host has recorded that it
// was delivered.
type recorder interface {
	// Recorded removes the mark of a message that is recorded. After an error it is removed later: a mark that
	// stays does no harm. It may be called for several messages at once.
	Recorded(ctx context.Context, queueID string) error
}

// settler is a Route whose Deliver leaves a step to be done for several messages at once.
type settler interface {
	// Settle returns once all that Deliver returned for before is on the guest's disk. After an error it may not be.
	Settle(ctx context.Context) error
}

// bounded is a Route whose connections to a guest have a bound in common.
type bounded interface {
	// bind sets the bound, before the first Deliver.
	bind(b *laneBound)
}

// Message is one message to deliver.
type Message struct {
	QueueID    string // the same at each attempt, and of no other message
	From, Rcpt string // the envelope as SMTP had it, without brackets; From is empty for a bounce
	Bytes      int64
	Again      bool // an earlier attempt may have reached the guest
	Content    io.Reader
}

// Refusal is an error over one message that the guest refuses for good, while others may pass.
type Refusal struct{ Err error }

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// way is how a worker uses a kind of Route.
type way struct {
	setting string // of the VM
	open    func(context.Context, Config, gateway.VM) (Route, error)
	width   int  // messages in flight
	keep    bool // the connection is kept while there is no mail
	inHost  bool // it does not lead into the guest: the VM may be off
}

// wayInto returns the way into a VM.
func wayInto(m gateway.VM) way {
	route, err := gateway.ParseMailRoute(m.Mail.Route)
	w := way{setting: m.Mail.Route, width: 1}
	switch {
	case err != nil: // of a newer version
		w.open = func(context.Context, Config, gateway.VM) (Route, error) { return nil, at(stageConnect, err) }
	case route.Scheme == "http":
		w.open = func(_ context.Context, config Config, m gateway.VM) (Route, error) {
			return openHTTP(config, m, route), nil
		}
	case route.Scheme == "s3":
		w.width, w.inHost = bucketWidth, true
		w.open = func(_ context.Context, config Config, m gateway.VM) (Route, error) {
			return openBucket(config, m, route)
		}
	case route.Scheme == "maildir":
		w.open, w.width, w.keep = openSFTP, window, true
	default:
		w.open = func(ctx context.Context, config Config, m gateway.VM) (Route, error) {
			return openSMTP(ctx, config, m, route)
		}
	}
	return w
}
