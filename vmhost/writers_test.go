package vmhost_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/mail"
	"lodge/storage"
	"lodge/vmhost/libvirt/libvirttest"
)

// services are the real mail and objects of the VMs of a rig, on loopback.
type services struct {
	mail    *mail.Server
	objects *storage.Server
	smtp    string
	s3      *minio.Client
}

// serve adds the services to a rig that has the VM already, as Parts. It restarts the daemon.
func serve(t *testing.T, r *rig, vm gateway.VM) *services {
	t.Helper()
	r.stop()
	directory, err := gateway.OpenDirectory(t.Context(), r.records)
	gatewaytest.Must(t, err)
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	known, err := people.Open(t.Context(), db.Shared(), "owner@lodge.localhost")
	gatewaytest.Must(t, err)
	s := new(services)
	s.objects, err = storage.New(storage.Config{
		Dir: t.TempDir(), Keyring: gateway.NewKeyring([32]byte{1}, directory), Directory: directory, People: known, Outside: "s3.lodge.localhost", Logger: r.config.Logger,
	})
	gatewaytest.Must(t, err)
	s.mail, err = mail.New(mail.Config{
		Dir: t.TempDir(), Domain: r.config.Domain, Directory: directory, SSHKeyFile: r.config.LoginKeyFile(), Logger: r.config.Logger,
		Dial: func(context.Context, gateway.VM, uint16) (net.Conn, error) {
			return nil, errors.New("the tiny guest has no sshd")
		},
	})
	gatewaytest.Must(t, err)
	s.run(t, vm)
	r.config.Parts = []gateway.Part{s.mail, s.objects}
	r.run(t)
	r.wantState(t, vm.ID, "running")
	return s
}

// run serves SMTP, and S3 as on the VM's tap.
func (s *services) run(t *testing.T, vm gateway.VM) {
	t.Helper()
	listen := func() net.Listener {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		gatewaytest.Must(t, err)
		return l
	}
	door, tap := listen(), listen()
	s.smtp = door.Addr().String()
	web := &http.Server{Handler: s.objects.Handler(), ConnContext: gateway.ConnContext} //nolint:gosec // its only client is this test
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var serving sync.WaitGroup
	for _, run := range []func() error{
		func() error { return s.mail.ServeSMTP(door) },
		func() error { return s.mail.Run(ctx) },
		func() error { return s.objects.Run(ctx) },
	} {
		serving.Go(func() {
			if err := run(); err != nil {
				t.Error(err)
			}
		})
	}
	serving.Go(func() { _ = web.Serve(gatewaytest.Listener(tap, vm.Identity)) }) // ends by Close
	t.Cleanup(func() {
		web.Close()
		gatewaytest.Must(t, s.mail.Shutdown(context.WithoutCancel(t.Context())))
		cancel()
		serving.Wait()
	})
	var err error
	s.s3, err = minio.New(tap.Addr().String(), &minio.Options{
		Creds: credentials.NewStaticV4("dummy", "dummysecret", ""), Region: gateway.S3Region, BucketLookup: minio.BucketLookupPath,
	})
	gatewaytest.Must(t, err)
}

// writer writes one thing after the other until it is ended.
type writer struct {
	accepted atomic.Int64 // the last one; all before it were accepted or refused for now
	mu       sync.Mutex
	numbers  []int64 // those that were accepted
	end      func()
}

// keepWriting calls put with rising numbers. Errors for which again reports true are of those that are
// refused for now.
func keepWriting(t *testing.T, put func(n int64) error, again func(error) bool) *writer {
	t.Helper()
	w := new(writer)
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := int64(1); ctx.Err() == nil; n++ {
			err := put(n)
			if err != nil {
				if !again(err) {
					t.Errorf("%d: %v", n, err)
					return
				}
				continue
			}
			w.mu.Lock()
			w.numbers = append(w.numbers, n)
			w.mu.Unlock()
			w.accepted.Store(n)
		}
	})
	w.end = func() { cancel(); writing.Wait() }
	t.Cleanup(w.end)
	return w
}

// more waits until some more were accepted, and returns the last of them.
func (w *writer) more(t *testing.T) int64 {
	t.Helper()
	have := w.accepted.Load()
	gatewaytest.WaitFor(t, "writes go on", func() bool { return w.accepted.Load() > have+3 })
	return w.accepted.Load()
}

func (s *services) keepMailing(t *testing.T, vm gateway.VM) *writer {
	t.Helper()
	to := []string{"x@" + vm.Name + ".lodge.localhost"}
	return keepWriting(t, func(n int64) error {
		return smtp.SendMail(s.smtp, nil, "a@b.c", to, fmt.Appendf(nil, "Subject: %d\r\n\r\nbody\r\n", n))
	}, func(err error) bool { return strings.HasPrefix(err.Error(), "4") })
}

func (s *services) keepPutting(t *testing.T) *writer {
	t.Helper()
	gatewaytest.Must(t, s.s3.MakeBucket(t.Context(), "box", minio.MakeBucketOptions{}))
	return keepWriting(t, func(n int64) error {
		data := content(n)
		_, err := s.s3.PutObject(t.Context(), "box", fmt.Sprint(n), bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
		return err
	}, func(err error) bool { return minio.ToErrorResponse(err).StatusCode == http.StatusServiceUnavailable })
}

func content(n int64) []byte { return bytes.Repeat(fmt.Appendf(nil, "object %d ", n), 1000) }

// present are the objects that there are, each of them whole.
func (s *services) present(t *testing.T) map[int64]bool {
	t.Helper()
	there := map[int64]bool{}
	for o := range s.s3.ListObjects(t.Context(), "box", minio.ListObjectsOptions{}) {
		gatewaytest.Must(t, o.Err)
		var n int64
		_, err := fmt.Sscan(o.Key, &n)
		gatewaytest.Must(t, err)
		r, err := s.s3.GetObject(t.Context(), "box", o.Key, minio.GetObjectOptions{})
		gatewaytest.Must(t, err)
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, content(n)) {
			t.Errorf("object %d: %d bytes, %v", n, len(data), err)
		}
		there[n] = true
	}
	return there
}

// Mail and objects come while a running VM is rolled back, and while that is undone. No mail that was
// accepted is lost. The objects are those of the checkpoint, and what came after the rollback; each is
// whole.
func TestRollbackAmidWrites(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	s := serve(t, r, m)
	letters, objects := s.keepMailing(t, m), s.keepPutting(t)
	letters.more(t)
	before := objects.more(t)
	_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "one", Kind: gateway.CheckpointAsked})
	gatewaytest.Must(t, err)
	letters.more(t)
	later := objects.more(t)
	left := objects.more(t)
	undo, err := r.host.Rollback(t.Context(), m.ID, "one", false)
	gatewaytest.Must(t, err)
	back := objects.accepted.Load() // which may have been written before the end
	letters.more(t)
	r.waitGreetings(t, m.ID, 2) // else the next rollback may end the guest before
	gone := objects.more(t)
	_, err = r.host.Rollback(t.Context(), m.ID, undo.Name, false)
	gatewaytest.Must(t, err)
	undone := objects.accepted.Load()
	letters.more(t)
	objects.more(t)
	letters.end()
	objects.end()

	there := s.present(t)
	for _, n := range objects.numbers {
		switch {
		case n <= left && !there[n]:
			t.Errorf("object %d was written before the first rollback, which was undone, and is gone", n)
		case n > back+1 && n <= gone && there[n]:
			t.Errorf("object %d was written after the first rollback, and is there although that was undone", n)
		case n > undone+1 && !there[n]:
			t.Errorf("object %d was written after the last rollback, and is gone", n)
		}
	}
	list, err := s.mail.List(t.Context(), m.ID, 0)
	gatewaytest.Must(t, err)
	subjects := map[string]bool{}
	for _, l := range list {
		subjects[l.Subject] = true
	}
	for _, n := range letters.numbers {
		if !subjects[fmt.Sprint(n)] {
			t.Errorf("letter %d was accepted and is gone", n)
		}
	}
	t.Logf("%d letters, %d objects; the checkpoint was made between object %d and %d", len(letters.numbers), len(objects.numbers), before, later)
	r.waitGreetings(t, m.ID, 3)
}

// Of rollbacks at once one is done, and the others are refused or follow it whole.
func TestRollbacksAtOnce(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	r.waitGreetings(t, m.ID, 1)
	for _, name := range []string{"one", "two"} {
		_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: name})
		gatewaytest.Must(t, err)
	}
	done := make(chan error)
	begin := make(chan struct{})
	for i := range 6 {
		go func() {
			<-begin
			_, err := r.host.Rollback(t.Context(), m.ID, []string{"one", "two"}[i%2], i%3 == 0)
			done <- err
		}()
	}
	close(begin)
	succeeded := 0
	for range 6 {
		err := <-done
		if err == nil {
			succeeded++
		} else if gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("a second rollback: %v", err)
		}
	}
	all, _ := r.host.Checkpoints(m.ID)
	if succeeded == 0 || len(all) != 2+succeeded {
		t.Errorf("%d rollbacks, and %d checkpoints", succeeded, len(all))
	}
	r.wantState(t, m.ID, "running")
	gatewaytest.WaitFor(t, "the guest has booted again", func() bool { // one rollback may end what another has started
		text, _ := os.ReadFile(filepath.Join(r.config.StateDir, "console", m.ID.String()+".log")) // absent is empty
		return strings.Count(string(text), libvirttest.Greeting) >= 2
	})
	r.restart(t)
	r.wantState(t, m.ID, "running")
	if now := r.machine(t, m.ID); now.Rollback != nil {
		t.Errorf("a rollback is left: %+v", now.Rollback)
	}
}
