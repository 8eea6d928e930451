package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// A sftp-server does one request at a time, syncs too, which are most of what a message costs.
// Several of them sync at once, which file systems do together. So a backlog gets more of them,
// over the same connection; a few messages do not, since each is a process in the guest.
const (
	maxLanes = 4 // of the 10 sessions that an sshd allows (MaxSessions in sshd_config(5))
	perLane  = 4 // messages, before another lane is opened

	minSingle = time.Minute // the shortest time for which one lane is used after another one hung
)

// laneBound is what a worker keeps of a guest, over its connections: whether a lane beside the
// first one has hung, or closed the connection. With it ends every message of a round. It is safe
// for concurrent use.
type laneBound struct {
	mu    sync.Mutex
	until time.Time // before it one lane is used
	pause time.Duration
}

// single reports whether only one lane is to be used.
func (b *laneBound) single() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.until)
}

// hung notes that a lane beside the first one hangs. After a while another attempt is made: it
// costs a step. It may have been the whole guest that stalled, so the first pause is short; each
// that follows soon is twice as long as the one before, up to the longest.
func (b *laneBound) hung(longest time.Duration) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Before(b.until) {
		return // of the same stall
	}
	if now.Sub(b.until) > longest {
		b.pause = 0
	}
	b.pause = min(max(2*b.pause, minSingle), longest)
	b.until = now.Add(b.pause)
}

// reset allows several lanes again: the guest may have changed.
func (b *laneBound) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until, b.pause = time.Time{}, 0
}

// lane is one sftp-server of a guest.
type lane struct {
	first  bool // of its connection
	client *sftp.Client
	answer *meter
	busy   int // messages
}

func openLane(guest *ssh.Client) (*lane, error) {
	session, err := guest.NewSession()
	if err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	in, err1 := session.StdinPipe()
	out, err2 := session.StdoutPipe()
	if err := errors.Join(err1, err2, session.RequestSubsystem("sftp")); err != nil {
		return nil, fmt.Errorf("start sftp: %w", err)
	}
	l := &lane{answer: &meter{r: out}}
	l.answer.left.Store(maxAnswerBytes)
	if l.client, err = sftp.NewClientPipe(l.answer, in); err != nil {
		return nil, fmt.Errorf("start sftp: %w", err)
	}
	for _, name := range []string{"fsync@openssh.com", "hardlink@openssh.com"} {
		if _, ok := l.client.HasExtension(name); !ok {
			return nil, errors.Join(fmt.Errorf("start sftp: the server does not support %s", name), l.client.Close())
		}
	}
	return l, nil
}

// join returns the open lane with the fewest messages; give gives it back.
func (g *sftpRoute) join() *lane {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.least()
	l.busy++
	return l
}

func (g *sftpRoute) least() *lane {
	return slices.MinFunc(g.lanes, func(a, b *lane) int { return a.busy - b.busy })
}

// take is join that opens a further lane if all have many messages. A guest that opens none has
// what there is.
func (g *sftpRoute) take(ctx context.Context) *lane {
	g.mu.Lock()
	defer g.mu.Unlock()
	least := g.least()
	if least.busy >= perLane && len(g.lanes) < maxLanes && !g.full && !g.bound.single() {
		err := g.within(ctx, nil, func() error {
			l, err := openLane(g.ssh)
			if err == nil {
				g.lanes, least = append(g.lanes, l), l
			}
			return err
		})
		if g.full = err != nil; g.full && !g.alive(ctx) {
			g.bound.hung(g.relax)
		}
	}
	least.busy++
	return least
}

// alive reports whether the guest still answers on the connection. A ctx that has ended proves
// nothing.
func (g *sftpRoute) alive(ctx context.Context) bool {
	err := g.within(ctx, nil, func() error {
		_, _, err := g.ssh.SendRequest("keepalive@openssh.com", true, nil)
		return err //nolint:wrapcheck // it is only compared
	})
	return err == nil || ctx.Err() != nil
}

func (g *sftpRoute) give(l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.busy--
}

// hang cuts the connection because a lane, or one that is being opened (nil), does not answer in
// time. If the first one answers, the next connection has it alone.
func (g *sftpRoute) hang(l *lane) {
	if l == nil || !l.first {
		g.bound.hung(g.relax)
	}
	g.cut()
}
