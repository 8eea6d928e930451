package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
)

var (
	upgrades = flag.Int("upgrades", 2, "how often the daemon is replaced under load")
	requests = flag.Int64("requests", 10000, "how many requests are served in the test of the upgrades")
)

// SIGUSR2 replaces the program of the daemon, and no request is refused or fails meanwhile. Nor does a
// forwarded port or a service on a tap refuse anything.
func TestUpgradeRefusesNothing(t *testing.T) {
	h := harness.New(t)
	vm := recordVM(t, h, "2222:22/tcp", "5353:22/udp")
	d := h.StartDaemon(t)
	l := startLoad(t, trusting(t, h))
	l.alsoConnects(t, h)
	all := l.knockEverywhere(t, vm)
	l.reaches(t, 1)
	for i := range *upgrades {
		goOn(t, all)
		d.Upgrade(t)
		l.reaches(t, *requests*int64(i+1)/int64(*upgrades))
	}
	goOn(t, all)
	l.stop()
	t.Logf("%d upgrades: %s", *upgrades, l)
	if l.refused.Load()+l.failed.Load() > 0 {
		t.Error("requests were lost")
	}
	refusedNothing(t, all, *upgrades, 0)
}

func goOn(t *testing.T, all []*knocks) {
	t.Helper()
	for _, k := range all {
		k.goesOn(t)
	}
}

// refusedNothing checks that no client was refused, after some ends of the daemon in order and some by
// kill -9. Each of the latter may have cut off one exchange.
func refusedNothing(t *testing.T, all []*knocks, stops, kills int) {
	t.Helper()
	for _, k := range all {
		t.Log(k)
		cut := int64(kills)
		if k.cut {
			cut += int64(stops)
		}
		if k.refused.Load() > 0 || k.lost.Load() > cut {
			t.Errorf("after %d stops and %d kills: %s", stops, kills, k)
		}
	}
}

// A daemon whose new program or configuration is broken keeps running when it gets SIGUSR2.
func TestUpgradeNeedsAValidConfiguration(t *testing.T) {
	h := harness.New(t)
	d := h.StartDaemon(t)
	file := filepath.Join(h.Dir, "lodge.toml")
	if err := os.WriteFile(file, []byte("no_such_key = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Signal(t, syscall.SIGUSR2)
	harness.Eventually(t, "the upgrade is refused", time.Minute, func() error {
		if !strings.Contains(d.Log(), "upgrade was refused") || !strings.Contains(d.Log(), "no_such_key") {
			return errors.New("the log has nothing about it")
		}
		return nil
	})
	if err := h.Health(t.Context()); err != nil {
		t.Errorf("after the refused upgrade: %v", err)
	}
	// Sockets at addresses that the configuration no longer has are closed.
	if err := os.WriteFile(file, []byte("smtp_port = 2525\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Upgrade(t)
	for port, open := range map[string]bool{"443": true, "2525": true, "25": false} {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
		if (err == nil) != open {
			t.Errorf("port %s: %v", port, err)
		}
		if err == nil {
			_ = c.Close() // nothing was sent
		}
	}
}

// alsoConnects connects to the mail port and to lodge's socket while the load runs.
func (l *load) alsoConnects(t *testing.T, h *harness.Host) {
	t.Helper()
	l.all.Go(func() {
		pace := time.NewTicker(5 * time.Millisecond) // without it the backlog of the unix socket fills
		defer pace.Stop()
		for ; !l.ended.Load(); <-pace.C {
			for addr, network := range map[string]string{"127.0.0.1:25": "tcp", gateway.ControlSocket(h.RunDir): "unix"} {
				c, err := new(net.Dialer).DialContext(t.Context(), network, addr)
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				_ = c.Close() // the connection was all
			}
		}
	})
}

// reaches waits until so many requests were served.
func (l *load) reaches(t *testing.T, requests int64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d requests are served", requests), 10*time.Minute, func() error {
		if l.served.Load() < requests {
			return fmt.Errorf("%s", l)
		}
		return nil
	})
}

// trusting is the configuration of a client that trusts the host's authority, for the page of the
// domain.
func trusting(t *testing.T, h *harness.Host) *tls.Config {
	t.Helper()
	pem, err := h.Client().RootPEM(t.Context())
	if err != nil {
		t.Fatalf("get the root certificate: %v", err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: h.Domain, MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		t.Fatalf("the root certificate is none:\n%s", pem)
	}
	return config
}

// With the unit of packaging, systemd keeps the listening sockets: a restart refuses and fails no
// request. After kill -9 no connection is refused, each client loses the one request that it had
// under way at most. Stopping the unit closes the sockets.
func TestUnitRefusesNothing(t *testing.T) {
	h := harness.New(t)
	vm := recordVM(t, h, "2222:22/tcp", "5353:22/udp")
	u := h.StartUnit(t)
	l := startLoad(t, trusting(t, h))
	l.alsoConnects(t, h)
	all := l.knockEverywhere(t, vm)
	l.reaches(t, 1)
	for i := range *upgrades {
		goOn(t, all)
		u.Restart(t)
		l.reaches(t, *requests*int64(i+1)/int64(*upgrades))
	}
	t.Logf("%d restarts: %s", *upgrades, l)
	if l.refused.Load()+l.failed.Load() > 0 {
		t.Error("requests were lost")
	}
	for range *upgrades {
		goOn(t, all)
		l.longest.Store(0)
		u.Kill(t)
		l.reaches(t, l.served.Load()+1000)
		t.Logf("after kill -9 the slowest request took %s", time.Duration(l.longest.Load()).Round(time.Millisecond))
	}
	goOn(t, all)
	l.stop()
	refusedNothing(t, all, *upgrades, *upgrades)
	t.Logf("and %d times kill -9: %s", *upgrades, l)
	if l.refused.Load() > 0 || l.failed.Load() > int64(clients**upgrades) {
		t.Error("connections were refused, or more than one request of a client was lost")
	}
	u.Stop(t)
	if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:443"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the stop: %v, %v", c, err)
	}
}

// systemd does not keep the port of a forward that was removed, and the port can be forwarded again at
// once.
func TestUnitClosesRemovedForwards(t *testing.T) {
	h := harness.New(t)
	vm := recordVM(t, h, "2222:22/tcp", "5353:22/udp")
	u := h.StartUnit(t)
	plugGuest(t, vm).echo(t, vm, 22)
	host := new(net.Dialer).DialContext
	stream, datagram := asks(host, "127.0.0.1:2222", "hello", "hello"), asksUDP(host, "127.0.0.1:5353", []byte("hello"), []byte("hello"))
	refuses := func(when string) {
		t.Helper()
		for network, exchange := range map[string]func(context.Context) error{"TCP": stream, "UDP": datagram} {
			if err := exchange(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s, %s: %v; want it refused", when, network, err)
			}
		}
	}
	for range 3 {
		h.Lodge(t, "forward", "rm", "2222/tcp")
		h.Lodge(t, "forward", "rm", "5353/udp")
		h.Lodge(t, "forward", "alpha", "2222:22/tcp")
		h.Lodge(t, "forward", "alpha", "5353:22/udp")
	}
	u.Restart(t)
	if err := errors.Join(stream(t.Context()), datagram(t.Context())); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	h.Lodge(t, "forward", "rm", "2222/tcp")
	h.Lodge(t, "forward", "rm", "5353/udp")
	refuses("removed")
	u.Restart(t)
	refuses("after a restart")
	u.Stop(t)
}
