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

	"lodge/e2e/sandbox"
	"lodge/gateway"
)

func TestMain(m *testing.M) { sandbox.Main(m, sandbox.Tmpfs("/run")) }

const domain = "lodge.localhost"

// records keeps machines in memory.
type records struct {
	mu   sync.Mutex
	last uint32
	all  map[gateway.ID]gateway.Machine
}

func (r *records) Machines(context.Context) ([]gateway.Machine, error) { return nil, nil }

func (r *records) Create(_ context.Context, m gateway.Machine) (gateway.Machine, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	m.Number = r.last
	m.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return m, nil
}
func (r *records) Save(context.Context, gateway.Machine) error { return nil }
func (r *records) Delete(context.Context, gateway.ID) error    { return nil }

// fixture is a mail server on loopback with its directory.
type fixture struct {
	*Server
	dir       string
	directory *gateway.Directory
	addr      string // of SMTP
	log       *logBuffer
}

// start runs a server on dir; the machines' IDs may be given, so that a second server knows the same VMs.
func start(t testing.TB, dir string, change func(*Config)) *fixture {
	t.Helper()
	directory, err := gateway.OpenDirectory(t.Context(), &records{})
	must(t, err)
	f := &fixture{dir: dir, directory: directory, log: &logBuffer{}}
	config := Config{
		Dir: dir, Domain: domain, Directory: directory, SSHKeyFile: "/nonexistent",
		Logger: slog.New(slog.NewTextHandler(f.log, nil)),
		Dial:   func(context.Context, gateway.Machine) (net.Conn, error) { return nil, errors.New("no guest") },
	}
	if change != nil {
		change(&config)
	}
	f.Server, err = New(config)
	must(t, err)
	l := listen(t)
	f.addr = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.ServeSMTP(l); err != nil {
			t.Error(err)
		}
	})
	serving.Go(func() {
		if err := f.Run(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return f
}

// add makes a running VM.
func (f *fixture) add(t testing.TB, name string) gateway.VM {
	t.Helper()
	return f.addAs(t, name, gateway.NewID(), "")
}

func (f *fixture) addAs(t testing.TB, name string, id gateway.ID, hostKey string) gateway.VM {
	t.Helper()
	m := gateway.Machine{VM: gateway.VM{ID: id, Name: name}, Desired: gateway.Running, HostKey: hostKey}
	m, err := f.directory.Create(t.Context(), m)
	must(t, err)
	return m.VM
}

func (f *fixture) list(t testing.TB, vm gateway.VM) []gateway.Message {
	t.Helper()
	list, err := f.List(t.Context(), vm.ID, 0)
	must(t, err)
	return list
}

func (f *fixture) read(t testing.TB, vm gateway.VM, queueID string) []byte {
	t.Helper()
	r, err := f.Open(t.Context(), vm.ID, queueID)
	must(t, err)
	defer r.Close()
	text, err := io.ReadAll(r)
	must(t, err)
	return text
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

// eventually waits for a condition that has no event of its own to wait for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o600))
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
