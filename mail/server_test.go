package mail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m, sandboxtest.Tmpfs("/run")) }

const domain = "lodge.localhost"

// fixture is a mail server on loopback with its directory.
type fixture struct {
	*Server
	dir       string
	directory *gateway.Directory
	addr      string // of SMTP
	log       *gatewaytest.Log
}

// start runs a server on dir; the machines' IDs may be given, so that a second server has the
// same VMs.
func start(tb testing.TB, dir string, change func(*Config)) *fixture {
	tb.Helper()
	directory := gatewaytest.NewDirectory(tb, new(gatewaytest.Records))
	f := &fixture{dir: dir, directory: directory, log: new(gatewaytest.Log)}
	config := Config{
		Dir: dir, Domain: domain, Directory: directory, SSHKeyFile: "/nonexistent",
		Logger: f.log.Logger(),
		Dial:   func(context.Context, gateway.VM, uint16) (net.Conn, error) { return nil, errors.New("no guest") },
	}
	if change != nil {
		change(&config)
	}
	var err error
	f.Server, err = New(config)
	gatewaytest.Must(tb, err)
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
			tb.Logf("lodged: %s", f.log.String())
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			tb.Error(err)
		}
		serving.Wait()
		if f.log.Count("imap session panicked") > 0 {
			tb.Errorf("a panic in an IMAP session:\n%s", f.log.String())
		}
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
	gatewaytest.Must(tb, err)
	return m.Identity
}

func (f *fixture) list(tb testing.TB, vm gateway.Identity) []gateway.Message {
	tb.Helper()
	list, err := f.List(tb.Context(), vm.ID, 0)
	gatewaytest.Must(tb, err)
	return list
}

func (f *fixture) read(tb testing.TB, vm gateway.Identity, queueID string) []byte {
	tb.Helper()
	r, err := f.Open(tb.Context(), vm.ID, queueID)
	gatewaytest.Must(tb, err)
	defer r.Close()
	text, err := io.ReadAll(r)
	gatewaytest.Must(tb, err)
	return text
}

// spoil changes a byte of text in a VM's mailbox on disk.
func (f *fixture) spoil(t *testing.T, vm gateway.Identity, text string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(f.dir, vm.ID.String(), "log", "*.seg"))
	gatewaytest.Must(t, err)
	if len(segments) != 1 {
		t.Fatalf("segments: %v", segments)
	}
	b, err := os.ReadFile(segments[0])
	gatewaytest.Must(t, err)
	at := bytes.Index(b, []byte(text))
	file, err := os.OpenFile(segments[0], os.O_WRONLY, 0)
	gatewaytest.Must(t, err)
	_, err = file.WriteAt([]byte{b[at] ^ 1}, int64(at))
	gatewaytest.Must(t, errors.Join(err, file.Close()))
}

// started changes a VM's record as a start of it does.
func (f *fixture) started(t *testing.T, vm gateway.Identity) {
	t.Helper()
	_, err := f.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error { m.Incarnation++; return nil })
	gatewaytest.Must(t, err)
}

func (f *fixture) delivered(t *testing.T, vm gateway.Identity, queueID string) bool {
	t.Helper()
	for _, m := range f.list(t, vm) {
		if m.QueueID == queueID {
			return m.Delivered
		}
	}
	return false
}

func (f *fixture) awaitDelivery(t *testing.T, vm gateway.Identity, queueID string) {
	t.Helper()
	gatewaytest.WaitFor(t, "delivery", func() bool { return f.delivered(t, vm, queueID) })
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(tb, err)
	return l
}

func write(tb testing.TB, path string, content []byte) {
	tb.Helper()
	gatewaytest.Must(tb, os.WriteFile(path, content, 0o600))
}
