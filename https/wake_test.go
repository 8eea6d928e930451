package https_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// sleepers are a site whose Config.Wake starts a VM once the gate is open.
type sleepers struct {
	*site
	gate  chan struct{}
	wakes atomic.Int32
	fails atomic.Bool
}

func newSleepers(t *testing.T, change ...func(*https.Config)) *sleepers {
	t.Helper()
	s := &sleepers{gate: make(chan struct{})}
	s.site = newSite(t, append(change, func(c *https.Config) { c.Wake = s.wake })...)
	return s
}

func (s *sleepers) wake(ctx context.Context, id gateway.ID) error {
	s.wakes.Add(1)
	select {
	case <-s.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.fails.Load() {
		return errors.New("no room")
	}
	_, err := s.dir.Update(ctx, id, func(m *gateway.VM) error {
		m.Desired = gateway.Running
		m.Incarnation++
		return nil
	})
	return err
}

// change changes a VM's record.
func (s *sleepers) change(m gateway.VM, f func(*gateway.VM)) {
	s.tb.Helper()
	_, err := s.dir.Update(s.tb.Context(), m.ID, func(m *gateway.VM) error { f(m); return nil })
	gatewaytest.Must(s.tb, err)
}

// sleeper makes a stopped VM that requests wake.
func (s *sleepers) sleeper(name string, shares ...gateway.Share) gateway.VM {
	s.tb.Helper()
	m := s.vm(name, shares...)
	s.change(m, func(m *gateway.VM) { m.Desired, m.WakeOnRequest = gateway.Stopped, true })
	return m
}

// held waits until n requests are held.
func (s *sleepers) held(n int) {
	s.tb.Helper()
	all := prometheus.NewRegistry()
	for _, c := range s.server.Collectors() {
		gatewaytest.Must(s.tb, all.Register(c))
	}
	gatewaytest.Eventually(s.tb, func() error {
		families, err := all.Gather()
		for _, f := range families {
			if have := f.GetMetric()[0].GetGauge().GetValue(); f.GetName() == "lodge_web_held_requests" && int(have) != n {
				return fmt.Errorf("%v requests are held, want %d", have, n)
			}
		}
		return err
	})
}

// many makes n requests at the same time, alternately for each host.
func (s *sleepers) many(n int, hosts ...string) (wait func() []answer) {
	answers := make([]answer, n)
	client := s.client()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			answers[i] = s.do(client, http.MethodPost, s.url(hosts[i%len(hosts)]), strings.NewReader(fmt.Sprint("body ", i)))
		})
	}
	return func() []answer {
		all.Wait()
		return answers
	}
}

// However many requests wait, for several ports, the VM is started once, and each gets its answer.
// Above the limit a page names the reason and reloads.
func TestRequestsWakeVMOnce(t *testing.T) {
	s := newSleepers(t)
	blog := s.sleeper("blog", public(gateway.DefaultPort, 9090)...)
	wait := s.many(64, "blog", "9090-blog")
	s.held(64)
	over := s.get(s.client(), s.url("blog"), browser()...)
	if over.StatusCode != 503 || over.Header.Get("Retry-After") == "" || !strings.Contains(over.body, "blog is starting") || !strings.Contains(over.body, `http-equiv="refresh"`) {
		t.Errorf("one more: %s %v: %s", over.Status, over.Header, over.body)
	}
	close(s.gate)
	gatewaytest.WaitFor(t, "the VM runs", func() bool { m, _ := s.dir.ByID(blog.ID); return m.Desired == gateway.Running })
	s.held(64) // until the ports answer
	for port, name := range map[uint16]string{8000: "page", 9090: "api"} {
		s.app(blog, port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("App", name)
			_ = r.Write(w) // with its body
		}))
	}
	for i, a := range wait() {
		if want := []string{"page", "api"}[i%2]; a.StatusCode != 200 || a.Header.Get("App") != want || !strings.Contains(a.body, fmt.Sprint("body ", i)) {
			t.Errorf("request %d: %s from %q, want %q: %s", i, a.Status, a.Header.Get("App"), want, a.body)
		}
	}
	if n := s.wakes.Load(); n != 1 {
		t.Errorf("the VM was started %d times", n)
	}
	s.held(0)
}

// Only the visitor of a page that it may open wakes the VM, and only if the owner wants that.
func TestWhoWakesVM(t *testing.T) {
	for name, tt := range map[string]struct {
		visitor string // "owner", "sibling", or else a stranger
		method  string
		shares  []gateway.Share
		change  func(*gateway.VM)
		want    int
		wakes   bool
	}{
		"anyone on a public page":     {shares: public(gateway.DefaultPort), want: 200, wakes: true},
		"sibling on a public page":    {visitor: "sibling", shares: public(gateway.DefaultPort), want: 200, wakes: true},
		"owner on a private page":     {visitor: "owner", want: 200, wakes: true},
		"stranger on a private page":  {want: 401},
		"stranger with a preflight":   {method: http.MethodOptions, want: 401},
		"stranger, other port public": {shares: public(8080), want: 401},
		"sibling on a private page":   {visitor: "sibling", want: 403},
		"without the setting":         {shares: public(gateway.DefaultPort), change: func(m *gateway.VM) { m.WakeOnRequest = false }, want: 503},
		"owner without the setting":   {visitor: "owner", change: func(m *gateway.VM) { m.WakeOnRequest = false }, want: 503},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSleepers(t)
			close(s.gate)
			blog := s.sleeper("blog", tt.shares...)
			s.app(blog, 80, echo("blog"))
			c := s.client()
			switch tt.visitor {
			case "owner":
				s.login(c, blog)
			case "sibling":
				c = s.tap(s.vm("shop"))
			}
			if n := s.wakes.Load(); n > 0 && !tt.wakes {
				t.Fatal("the login woke the VM")
			}
			if tt.change != nil {
				s.change(blog, tt.change)
			}
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			a := s.do(c, method, s.url("blog"), nil, "Access-Control-Request-Method", "POST")
			if n := s.wakes.Load(); a.StatusCode != tt.want || (n > 0) != tt.wakes {
				t.Errorf("%s after %d wakes, want %d: %s", a.Status, n, tt.want, a.body)
			}
		})
	}
}

// What changes while a request is held is respected: the VM may be private, stopped or removed by
// then.
func TestHeldRequestIsDecidedAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*gateway.VM)
		want   int
	}{
		"private": {func(m *gateway.VM) { m.Shares = nil }, 401},
		"removed": {func(m *gateway.VM) { m.Desired = gateway.Removed }, 421},
		"failed":  {nil, 503},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSleepers(t)
			blog := s.sleeper("blog", public(gateway.DefaultPort)...)
			s.app(blog, 80, echo("blog"))
			wait := s.many(1, "blog")
			s.held(1)
			if s.fails.Store(tt.change == nil); tt.change != nil {
				s.change(blog, tt.change)
			}
			close(s.gate)
			if a := wait()[0]; a.StatusCode != tt.want {
				t.Errorf("%s, want %d: %s", a.Status, tt.want, a.body)
			}
			if m, _ := s.dir.ByID(blog.ID); name == "removed" && m.Desired != gateway.Removed {
				t.Error("a removed VM was woken")
			}
		})
	}
}

// A VM whose start fails is not tried again by each request.
func TestFailedWakeIsNotRepeatedAtOnce(t *testing.T) {
	s := newSleepers(t)
	close(s.gate)
	s.fails.Store(true)
	s.sleeper("blog", public(gateway.DefaultPort)...)
	for range 5 {
		if a := s.get(s.client(), s.url("blog")); a.StatusCode != 503 || !strings.Contains(a.body, "blog is stopped") || strings.Contains(a.body, "no room") {
			t.Errorf("%s: %s", a.Status, a.body)
		}
	}
	if n := s.wakes.Load(); n != 1 {
		t.Errorf("%d tries", n)
	}
	if log := s.log.String(); !strings.Contains(log, "VM was not woken") || !strings.Contains(log, "no room") {
		t.Errorf("the log lacks the cause:\n%s", log)
	}
}

// A request is held for a bounded time, and not longer than its client waits.
func TestHeldRequestEnds(t *testing.T) {
	t.Run("in time", func(t *testing.T) {
		s := newSleepers(t, func(c *https.Config) { c.HoldTime = time.Millisecond })
		s.sleeper("blog", public(gateway.DefaultPort)...)
		if a := s.get(s.client(), s.url("blog")); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, "blog is starting") {
			t.Errorf("%s %v: %s", a.Status, a.Header, a.body)
		}
	})
	t.Run("with its client", func(t *testing.T) {
		s := newSleepers(t)
		s.sleeper("blog", public(gateway.DefaultPort)...)
		for _, c := range []*http.Client{s.client(), s.clientVia(s.addr, nil)} {
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = c.Jar != nil
			ctx, cancel := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("blog"), nil)
			gatewaytest.Must(t, err)
			ended := make(chan error, 1)
			go func() {
				_, err := c.Do(r) //nolint:bodyclose // there is no answer
				ended <- err
			}()
			s.held(1)
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			s.held(0)
		}
	})
	t.Run("with the server", func(t *testing.T) {
		s := newSleepers(t)
		s.sleeper("blog", public(gateway.DefaultPort)...)
		wait := s.many(4, "blog")
		s.held(4)
		ended := make(chan error, 1)
		go func() { ended <- s.server.Shutdown(t.Context()) }()
		for _, a := range wait() {
			if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %s", a.Status, a.body)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
