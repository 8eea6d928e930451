package deliver

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"lodge/gateway/gatewaytest"
)

// A guest that closes the connection when a second lane is opened has one lane the next time; one
// that refuses the lane, or is left, does not need that.
func TestSecondLane(t *testing.T) {
	for name, test := range map[string]struct {
		second func(*ssh.ServerConn, ssh.NewChannel, context.CancelFunc)
		single bool
	}{
		"closes":  {func(c *ssh.ServerConn, _ ssh.NewChannel, _ context.CancelFunc) { c.Close() }, true},
		"refuses": {func(_ *ssh.ServerConn, n ssh.NewChannel, _ context.CancelFunc) { n.Reject(ssh.ResourceShortage, "no") }, false},
		"is left": {func(_ *ssh.ServerConn, _ ssh.NewChannel, leave context.CancelFunc) { leave() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			w := hostileWorker(t, func(c net.Conn, config *ssh.ServerConfig) {
				conn, channels, global, err := ssh.NewServerConn(c, config)
				if err != nil {
					t.Error(err)
					return
				}
				go ssh.DiscardRequests(global)
				serveFirst(<-channels, endlessDirectory(t))
				test.second(conn, <-channels, leave)
			})
			w.config.Times.ParkedMax = time.Hour
			m, _ := w.config.Directory.ByID(w.id)
			route, err := openSFTP(ctx, w.config, m)
			gatewaytest.Must(t, err)
			defer route.Close()
			g := route.(*sftpRoute)
			g.bind(&w.lanes)
			for range perLane {
				g.join()
			}
			if l := g.take(ctx); !l.first || w.lanes.single() != test.single {
				t.Errorf("a second lane is open: %v; one lane from now on: %v", !l.first, w.lanes.single())
			}
		})
	}
}

// serveFirst accepts a channel, and serves it until the connection ends.
func serveFirst(opened ssh.NewChannel, serve func(ssh.Channel)) {
	channel, requests, err := opened.Accept()
	if err != nil {
		return
	}
	go func() {
		for r := range requests {
			_ = r.Reply(true, nil) // the client has left
		}
	}()
	go serve(channel)
}

// A guest that stalled once has all lanes again after a minute; one that stalls again and again is
// left with one for longer each time.
func TestLaneBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b laneBound
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			for range 3 { // lanes of one connection
				b.hung(10 * time.Minute)
			}
			time.Sleep(want*time.Minute - 1) //nolint:forbidigo // of the bubble's clock
			if !b.single() {
				t.Errorf("several lanes before %d minutes", want)
			}
			time.Sleep(time.Nanosecond) //nolint:forbidigo // of the bubble's clock
			if b.single() {
				t.Errorf("one lane after %d minutes", want)
			}
		}
		time.Sleep(10*time.Minute + 1) //nolint:forbidigo // of the bubble's clock
		b.hung(10 * time.Minute)
		time.Sleep(time.Minute) //nolint:forbidigo // of the bubble's clock
		if b.single() {
			t.Error("a stall of long ago counts")
		}
		if b.hung(10 * time.Minute); !b.single() {
			t.Error("several lanes after another stall")
		}
		if b.reset(); b.single() {
			t.Error("one lane though the guest has changed")
		}
	})
}
