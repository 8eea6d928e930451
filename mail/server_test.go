package mail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m, sandboxtest.Tmpfs("/run")) }

const domain = "lodge.localhost"

// records assigns numbers; the Directory keeps the VMs.
type records struct {
	mu   sync.Mutex
	last uint32
}

func (r *records) VMs(context.Context) ([]gateway.VM, error) { return nil, nil }

func (r *records) Create(_ context.Context, m gateway.VM) (gateway.VM, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	m.Number = r.last
	m.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return m, nil
}
func (r *records) Save(context.Context, gateway.VM) error   { return nil }
func (r *records) Delete(context.Context, gateway.ID) error { return nil }

// fixture is a mail server on loopback with its directory.
type fixture struct {
	*Server
	dir       string
	directory *gateway.Directory
	addr      string // of SMTP
	log       *logBuffer
}

// start runs a server on dir; the machines' IDs may be given, so that a second server knows the
// same VMs.
func start(tb testing.TB, dir string, change func(*Config)) *fixture {
	tb.Helper()
	directory, err := gateway.OpenDirectory(tb.Context(), &records{})
	must(tb, err)
	f := &fixture{dir: dir, directory: directory, log: &logBuffer{}}
	config := Config{
		Dir: dir, Domain: domain, Directory: directory, SSHKeyFile: "/nonexistent",
		Logger: slog.New(slog.NewTextHandler(f.log, nil)),
		Dial:   func(context.Context, gateway.VM) (net.Conn, error) { return nil, errors.New("no guest") },
	}
	if change != nil {
		change(&config)
	}
	f.Server, err = New(config)
	must(tb, err)
	l := listen(tb)
	f.addr = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.ServeSMTP(l); err != nil {
			tb.Error(err)
		}
	})
	ctx := context.WithoutCancel(tb.Context())
	serving.Go(func() {
		if err := f.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("lodged: %s", f.log.text())
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			tb.Error(err)
		}
		serving.Wait()
	})
	return f
}

// add makes a running VM.
func (f *fixture) add(tb testing.TB, name string) gateway.Identity {
	tb.Helper()
	return f.addAs(tb, name, gateway.NewID(), "")
}

func (f *fixture) addAs(tb testing.TB, name string, id gateway.ID, hostKey string) gateway.Identity {
	tb.Helper()
	m := gateway.VM{Identity: gateway.Identity{ID: id, Name: name}, Desired: gateway.Running, HostKey: hostKey}
	m, err := f.directory.Create(tb.Context(), m)
	must(tb, err)
	return m.Identity
}

func (f *fixture) list(tb testing.TB, vm gateway.Identity) []gateway.Message {
	tb.Helper()
	list, err := f.List(tb.Context(), vm.ID, 0)
	must(tb, err)
	return list
}

func (f *fixture) read(tb testing.TB, vm gateway.Identity, queueID string) []byte {
	tb.Helper()
	r, err := f.Open(tb.Context(), vm.ID, queueID)
	must(tb, err)
	defer r.Close()
	text, err := io.ReadAll(r)
	must(tb, err)
	return text
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	must(tb, err)
	return l
}

// eventually waits for a condition that has no event of its own to wait for.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("not within 10 s: %s", what)
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func write(tb testing.TB, path string, content []byte) {
	tb.Helper()
	must(tb, os.WriteFile(path, content, 0o600))
}

// logBuffer is a log that tests read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Count(b.buf.Bytes(), []byte(text))
}

func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
