// Package controltest runs a real control server, on a real socket, with small fakes behind its interfaces.
package controltest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/gateway/domains"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

// LoginSecret is in every login link; it belongs in no log.
const LoginSecret = "one-time-secret"

// Host is a server with its fakes. Nothing of it is changed but by its methods.
type Host struct {
	Socket    string
	Directory *gateway.Directory
	People    *people.Book
	Requests  *people.Requests
	Keyring   *gateway.Keyring
	Logs      *Buffer
	DNS       *domainstest.Server // of custom domains

	server *control.Server
	ended  chan error
	full   atomic.Bool

	objects atomic.Pointer[api.Objects]

	mu        sync.Mutex
	listening bool
	templates []api.Template
	notices   []gateway.Notice
	stuck     chan struct{}
	messages  map[gateway.ID][]Mail

	unreadable string // the VM whose mailbox cannot be read
}

// Mail is a message in a fake mailbox.
type Mail struct {
	gateway.Message
	Raw string
}

// Start serves on a socket in a fresh directory until the test ends.
func Start(tb testing.TB) *Host {
	tb.Helper()
	dir := tb.TempDir()
	db, err := store.Open(tb.Context(), filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // the directory goes with it
	directory, err := gateway.OpenDirectory(tb.Context(), db)
	if err != nil {
		tb.Fatal(err)
	}
	known, err := people.Open(tb.Context(), db.Shared(), "owner@lodge.localhost")
	if err != nil {
		tb.Fatal(err)
	}
	requests, err := people.OpenRequests(tb.Context(), db.Shared(), time.Now)
	if err != nil {
		tb.Fatal(err)
	}
	h := &Host{
		Socket: filepath.Join(dir, "lodged.sock"), Directory: directory,
		People: known, Requests: requests, Keyring: gateway.NewKeyring([32]byte{1}, directory), Logs: &Buffer{}, messages: map[gateway.ID][]Mail{},
		templates: []api.Template{
			{ID: "debian-13-2cpu-1024mib-hxk3v7qa", Image: "debian-13", CPUs: 2, MemoryMiB: 1024, Bytes: 300 << 20, Built: time.Unix(1e9, 0)},
			{ID: "debian-12-1cpu-512mib-q2w3e4r5", Image: "debian-12", CPUs: 1, MemoryMiB: 512, Bytes: 300 << 20, Built: time.Unix(1e9, 0)},
		},
	}
	h.DNS = domainstest.Start(tb)
	verbs := api.New(api.Config{
		Directory: directory, People: known, Requests: requests, Keyring: h.Keyring, Machines: h, Observer: h, Terminals: h, Examiner: h, Checkpoints: &fakeCheckpoints{host: h}, Mailbox: h, MailDesk: h, Notices: h, Objects: lateObjects{h}, Web: h, Passes: &fakePasses{}, Ports: h, Images: fakeImages{h}, Forwarder: &fakeForwards{},
		Domains: domains.New(domains.Config{Domain: "lodge.localhost", Servers: []string{h.DNS.Addr}}),
		Doctor:  h, Domain: "lodge.localhost", S3URL: "https://s3.lodge.localhost", Version: "v0.0.0-test", Logger: slog.New(slog.NewTextHandler(h.Logs, nil)),
	})
	h.server = control.New(control.Config{
		API: verbs, Metrics: http.NotFoundHandler(),
		Logger: slog.New(slog.NewTextHandler(h.Logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	l, err := control.Listen(tb.Context(), h.Socket)
	if err != nil {
		tb.Fatal(err)
	}
	h.ended = make(chan error, 1)
	go func() { h.ended <- h.server.Serve(l) }()
	tb.Cleanup(func() { h.Shutdown(tb) })
	return h
}

// Shutdown ends the server. A second time does nothing.
func (h *Host) Shutdown(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := errors.Join(h.server.Shutdown(ctx), <-h.ended); err != nil {
		tb.Errorf("serve: %v", err)
	}
	h.ended <- nil
}

// Handler is the server's, without its socket.
func (h *Host) Handler() http.Handler { return h.server.Handler() }

// Serve makes one request of a handler, as the owner.
func Serve(handler http.Handler, method, path string, body io.Reader) (status int, answer []byte) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(control.WithCaller(context.Background(), api.Owner()), method, path, body))
	return w.Code, w.Body.Bytes()
}

// Add makes a running VM.
func (h *Host) Add(tb testing.TB, name string) gateway.VM {
	tb.Helper()
	m, err := h.New(tb.Context(), gateway.Spec{Name: name}, func(gateway.Progress) {})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// Listen makes something listen in all VMs.
func (h *Host) Listen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listening = true
}

// Fill makes New fail from now on, after some progress, since the disk is full.
func (h *Host) Fill() { h.full.Store(true) }

// Stick makes the next New go on until it is cancelled; what it returns is closed when New has begun.
func (h *Host) Stick() (begun <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stuck = make(chan struct{})
	return h.stuck
}

func (h *Host) sticking() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	begun := h.stuck
	h.stuck = nil
	return begun
}

// Receive puts mail into a VM's mailbox.
func (h *Host) Receive(id gateway.ID, m Mail) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages[id] = append(h.messages[id], m)
}

// New implements api.Machines.
func (h *Host) New(ctx context.Context, spec gateway.Spec, progress func(gateway.Progress)) (gateway.VM, error) {
	m := gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: spec.Name}, Size: gateway.Size{
			Image: "debian-13", CPUs: max(spec.CPUs, 1), MemoryMiB: max(spec.MemoryMiB, 1024), DiskGiB: max(spec.DiskGiB, 8),
		}, Desired: gateway.Running, Ready: true, Incarnation: 1, Grants: spec.Grants,
	}
	if spec.Image != "" {
		m.Image = spec.Image
	}
	m, err := h.Directory.Create(ctx, m)
	if err != nil {
		return gateway.VM{}, err
	}
	progress(gateway.Progress{Phase: "disk", Text: "copying " + m.Image, Done: 1, Total: 2})
	progress(gateway.Progress{Phase: "disk", Text: "copying " + m.Image, Done: 2, Total: 2})
	if begun := h.sticking(); begun != nil {
		close(begun)
		<-ctx.Done()
		return gateway.VM{}, errors.Join(ctx.Err(), h.Directory.Delete(context.WithoutCancel(ctx), m.ID))
	}
	if h.full.Load() {
		err := gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").WithHint("Free some space below /var/lib/lodge.")
		return gateway.VM{}, errors.Join(err, h.Directory.Delete(ctx, m.ID))
	}
	progress(gateway.Progress{Phase: "define", Text: fmt.Sprintf("with %d bytes of user data", len(spec.UserData))})
	return m, nil
}

func (h *Host) desire(ctx context.Context, id gateway.ID, desired gateway.Desired) error {
	_, err := h.Directory.Update(ctx, id, func(m *gateway.VM) error {
		m.Desired = desired
		return nil
	})
	return err
}

// Start implements api.Machines.
func (h *Host) Start(ctx context.Context, id gateway.ID) error {
	return h.desire(ctx, id, gateway.Running)
}

// Stop implements api.Machines.
func (h *Host) Stop(ctx context.Context, id gateway.ID, _ bool) error {
	return h.desire(ctx, id, gateway.Stopped)
}

// Restart implements api.Machines.
func (h *Host) Restart(ctx context.Context, id gateway.ID) error { return h.Start(ctx, id) }

// Remove implements api.Machines.
func (h *Host) Remove(ctx context.Context, id gateway.ID) error { return h.Directory.Delete(ctx, id) }

// Status implements api.Observer.
func (h *Host) Status(_ context.Context, id gateway.ID) gateway.Status {
	m, _ := h.Directory.ByID(id)
	return gateway.Status{State: string(m.Desired)}
}

// Statuses implements api.Observer.
func (h *Host) Statuses(ctx context.Context) map[gateway.ID]gateway.Status {
	all := map[gateway.ID]gateway.Status{}
	for _, m := range h.Directory.All() {
		all[m.ID] = h.Status(ctx, m.ID)
	}
	return all
}

// Wait implements api.Observer.
func (h *Host) Wait(_ context.Context, _ gateway.ID, progress func(gateway.Progress)) error {
	progress(gateway.Progress{Phase: "kernel", Text: "the kernel has started", Elapsed: 2 * time.Second})
	progress(gateway.Progress{Phase: "ssh", Text: "the guest has booted", Elapsed: 40 * time.Second})
	return nil
}

// Console implements api.Terminals: it greets, and repeats its input in upper case.
func (h *Host) Console(context.Context, gateway.ID) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close() //nolint:errcheck // a pipe
		_, _ = io.WriteString(ours, "login: ")
		buf := make([]byte, 100)
		for {
			n, err := ours.Read(buf)
			if err != nil {
				return
			}
			if _, err := io.WriteString(ours, strings.ToUpper(string(buf[:n]))); err != nil {
				return
			}
		}
	}()
	return theirs, nil
}

// Log implements api.Terminals; followed, it goes on until it is closed.
func (h *Host) Log(_ context.Context, _ gateway.ID, follow bool) (io.ReadCloser, error) {
	past := strings.NewReader("Linux version 6.12\r\n\x1b]0;title\a\x1b[32mhello\x1b[0m login:\n")
	if !follow {
		return io.NopCloser(past), nil
	}
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, past) // then silence
	}()
	return r, nil
}

// SSH implements api.Terminals.
func (h *Host) SSH(id gateway.ID) (gateway.SSHAccess, error) {
	m, _ := h.Directory.ByID(id)
	return gateway.SSHAccess{
		Addr: m.Addr.String(), User: gateway.GuestUser,
		PublicKeyFile: gateway.DefaultRunDir + "/ssh-agent.pub", AgentSocket: gateway.SSHAgentSocket(gateway.DefaultRunDir),
		KnownHosts: m.Addr.String() + " ssh-ed25519 AAAA",
	}, nil
}

// DNSRecords implements api.Mailbox.
func (h *Host) DNSRecords(own string) ([]gateway.DNSRecord, error) {
	if own != "" {
		return []gateway.DNSRecord{{Name: own + ".", Type: "MX", Value: "10 lodge.localhost.", Why: "mail for " + own + " comes here"}}, nil
	}
	return []gateway.DNSRecord{{Name: "lodge.localhost.", Type: "TXT", Value: `"v=spf1 a:lodge.localhost -all"`, Why: "only this host sends mail of the VMs"}}, nil
}

// List implements api.Mailbox.
func (h *Host) List(_ context.Context, id gateway.ID, limit int) ([]gateway.Message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []gateway.Message
	for _, m := range h.messages[id][:min(limit, len(h.messages[id]))] {
		all = append(all, m.Message)
	}
	return all, nil
}

// Open implements api.Mailbox.
func (h *Host) Open(_ context.Context, id gateway.ID, queueID string) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.messages[id] {
		if m.QueueID == queueID {
			return io.NopCloser(strings.NewReader(m.Raw)), nil
		}
	}
	return nil, gateway.Errorf(gateway.KindNotFound, "no message %q", queueID)
}

// RemoveMessages implements api.Mailbox.
func (h *Host) RemoveMessages(_ context.Context, id gateway.ID, r gateway.MailRemoval) (removed gateway.MailRemoved, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var left []Mail
	for _, m := range h.messages[id] {
		if !r.All && !m.Received.Before(r.Before) && !slices.Contains(r.QueueIDs, m.QueueID) {
			left = append(left, m)
			continue
		}
		removed.Messages++
		removed.Bytes += m.Bytes
		if !m.Delivered && id != gateway.Postmaster().ID {
			removed.Waiting++
		}
	}
	switch {
	case removed.Messages < len(r.QueueIDs):
		return gateway.MailRemoved{}, gateway.Errorf(gateway.KindNotFound, "no message %q", r.QueueIDs[0])
	case removed.Waiting > 0 && !r.Waiting:
		return gateway.MailRemoved{}, gateway.Errorf(gateway.KindConflict, "%d of the messages are not in the VM yet", removed.Waiting).WithHint("Remove them all the same: --yes")
	}
	h.messages[id] = left
	return removed, nil
}
