package deliver

import (
	"context"
	"io"

	"lodge/gateway"
)

// Route is a way into one VM, which is not trusted: its answers have limits and timeouts. After an
// error it is closed, and a new one is opened for the next attempt.
type Route interface {
	// Deliver returns once the guest has the message, and answers for it. The name is the queue id;
	// a second delivery under it makes no second copy, where the way into the guest allows that.
	Deliver(ctx context.Context, name string, content io.Reader, size int64) error
	// Close ends it without waiting for the guest.
	Close()
}

// openRoute connects to the guest.
func openRoute(ctx context.Context, config Config, m gateway.VM) (Route, error) {
	g, err := openSFTP(ctx, config, m)
	if err != nil {
		return nil, err // not a nil *sftpRoute in a Route
	}
	return g, nil
}
