package relay

import (
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
