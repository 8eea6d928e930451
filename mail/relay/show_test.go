package relay

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Letters that wait are listed with the server's reply; they are retried at once, and removed for good.
func TestShow(t *testing.T) {
	t.Parallel()
	var open atomic.Bool
	far := (&sink{rcpt: func(string) error {
		if !open.Load() {
			return reply(451, 4, 7, 1, "Greylisted")
		}
		return nil
	}}).serve(t, "127.0.0.3", "", nil)
	r := start(t, far.port, func(c *Config) { c.Times.RetryMin, c.Times.RetryMax = time.Hour, time.Hour }, "far.example. A 127.0.0.3")
	r.send(t, "one", "x@far.example", "y@far.example")
	name := func(id gateway.ID) string { return map[gateway.ID]string{r.blog.ID: "blog"}[id] }
	var list []gateway.QueuedMail
	gatewaytest.WaitFor(t, "an attempt", func() bool {
		list = r.List(gateway.ID{}, 10, name)
		return len(list) == 2 && list[0].Attempts == 1 && !list[0].Next.IsZero()
	})
	for i, to := range []string{"x@far.example", "y@far.example"} {
		if m := list[i]; m.VM != "blog" || m.To != to || m.Server != "far.example" || !strings.HasPrefix(m.Reply, "451 4.7.1 ") || m.Bytes == 0 || time.Until(m.Next) < time.Minute {
			t.Errorf("%+v", m)
		}
	}
	if r.Oldest() != list[0].Queued || r.WaitingOf(r.blog.ID) != 2 || len(r.List(gateway.NewID(), 10, name)) != 0 || len(r.List(r.blog.ID, 1, name)) != 1 {
		t.Errorf("oldest %v, waiting %d", r.Oldest(), r.WaitingOf(r.blog.ID))
	}
	if n := r.Retry(r.blog.ID, []string{"none"}); n != 0 {
		t.Errorf("%d retried", n)
	}
	if n, err := r.RemoveLetters(gateway.NewID(), nil); n != 0 || err != nil {
		t.Errorf("of another VM: %d, %v", n, err)
	}
	n, err := r.RemoveLetters(r.blog.ID, []string{list[1].QueueID})
	if n != 1 || err != nil || r.Waiting() != 1 {
		t.Errorf("%d removed, %v, %d wait", n, err, r.Waiting())
	}
	open.Store(true)
	if n := r.Retry(gateway.ID{}, nil); n != 1 {
		t.Errorf("%d retried", n)
	}
	if got := far.wait(t, 1)[0]; len(got.to) != 1 || got.to[0] != "x@far.example" {
		t.Errorf("sent to %v", got.to)
	}
	r.waitEmpty(t)
	if !r.Oldest().IsZero() {
		t.Errorf("oldest %v", r.Oldest())
	}
}

// A letter that is removed while its server is asked does not come back, nor does its count.
func TestRemoveOnTheWay(t *testing.T) {
	t.Parallel()
	asked, goOn := make(chan struct{}), make(chan struct{})
	far := (&sink{rcpt: func(to string) error {
		if to == "y@far.example" {
			close(asked)
			<-goOn
		}
		return reply(451, 4, 7, 1, "Not now")
	}}).serve(t, "127.0.0.3", "", nil)
	r := start(t, far.port, func(c *Config) { c.Times.RetryMin, c.Times.RetryMax = time.Hour, time.Hour }, "far.example. A 127.0.0.3")
	r.send(t, "one", "x@far.example", "y@far.example")
	<-asked
	list := r.List(r.blog.ID, 10, func(gateway.ID) string { return "blog" })
	if len(list) != 2 || !list[1].Next.IsZero() {
		t.Fatalf("%+v", list)
	}
	n, err := r.RemoveLetters(r.blog.ID, []string{list[1].QueueID})
	close(goOn)
	if n != 1 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	gatewaytest.WaitFor(t, "one letter", func() bool {
		left := r.List(r.blog.ID, 10, func(gateway.ID) string { return "blog" })
		return len(left) == 1 && left[0].Attempts == 1 && r.Waiting() == 1
	})
	n, err = r.RemoveLetters(gateway.ID{}, nil)
	if n != 1 || err != nil || r.Waiting() != 0 {
		t.Errorf("%d removed, %v, %d wait", n, err, r.Waiting())
	}
}

// Long queues delay neither the start nor the mail of other VMs, and count before more comes in.
func TestStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, "1", func(c *Config) { c.Dir = dir; c.Times.RetryMin, c.Times.RetryMax = time.Hour, time.Hour }, "far.example. A 127.0.0.3")
	const n = 40
	for range n {
		r.send(t, "one", "x@far.example")
	}
	gone := gateway.Identity{ID: gateway.NewID(), Number: 2, Name: "gone"}
	_, err := r.Send(t.Context(), Message{VM: gone, From: "a@gone." + us, To: []string{"x@far.example"}, Body: strings.NewReader("From: a@gone." + us + "\r\n\r\nx\r\n")})
	gatewaytest.Must(t, err)
	r.stop()
	c := config(r, dir, "1", func(c *Config) {
		c.Dir, c.Limits.Waiting, c.Known = dir, n+1, func(id gateway.ID) bool { return id == r.blog.ID }
		c.Times.RetryMin, c.Times.RetryMax = time.Hour, time.Hour
	})
	q, err := New(c)
	gatewaytest.Must(t, err)
	if q.Waiting() != 0 || len(q.unread) != 2 {
		t.Errorf("%d letters are read, %d VMs are not", q.Waiting(), len(q.unread))
	}
	send := func() error {
		_, err := q.Send(t.Context(), Message{VM: r.blog, From: "app@blog." + us, To: []string{"x@far.example"}, Body: strings.NewReader("From: a@blog." + us + "\r\n\r\nx\r\n")})
		return err
	}
	gatewaytest.Must(t, send())
	if err := send(); gateway.KindOf(err) != gateway.KindNoSpace || q.WaitingOf(r.blog.ID) != n+1 {
		t.Errorf("above the limit: %v, %d wait", err, q.WaitingOf(r.blog.ID))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	gatewaytest.WaitFor(t, "the queue to be read", q.allRead)
	if q.Waiting() != n+1 || q.WaitingOf(gone.ID) != 0 {
		t.Errorf("%d wait, %d of a VM that is gone", q.Waiting(), q.WaitingOf(gone.ID))
	}
	cancel()
	gatewaytest.Must(t, <-ended)
	q.Close()
}

// When the rate of a VM is used up, all its roads wait together: a connection is made for each message at most.
func TestRateOfVM(t *testing.T) {
	t.Parallel()
	far := new(sink).serve(t, "127.0.0.3", "", nil)
	var records []string
	for i := range 10 {
		records = append(records, fmt.Sprintf("d%d.example. A 127.0.0.3", i))
	}
	r := start(t, far.port, func(c *Config) { c.Limits.RateOfVM, c.Limits.BurstOfVM = 20, 2 }, records...)
	for i := range 10 {
		r.send(t, "one", fmt.Sprintf("x@d%d.example", i))
		r.send(t, "two", fmt.Sprintf("x@d%d.example", i))
	}
	far.wait(t, 20)
	r.waitEmpty(t)
	if far.sessions > 20 {
		t.Errorf("%d connections for 20 messages", far.sessions)
	}
}
