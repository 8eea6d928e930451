package mailbox

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
)

// A sync that fails with EIO refuses the batch that it was for, with 452: after it the kernel may have dropped pages, so
// nothing more is written to that segment. What was acknowledged before and after it is there, also for the next start,
// and what was refused is not.
func TestSyncFails(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := box(t, s, vm)
	var failing atomic.Bool
	var calls atomic.Int64
	b.datasync = func(fd int) error {
		if calls.Add(1); failing.Load() && calls.Load()%3 == 0 {
			return syscall.EIO
		}
		return syscall.Fdatasync(fd)
	}
	accepted, refused := map[string]string{}, map[string]error{}
	var mu sync.Mutex
	send := func(body string) {
		ids, err := put(s, body, vm)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			accepted[ids[0]] = body
		} else {
			refused[body] = err
		}
	}
	send("before")
	failing.Store(true)
	var senders sync.WaitGroup
	for n := range 8 {
		senders.Go(func() {
			for i := range 20 {
				send(fmt.Sprint("during ", n, " ", i, "."))
			}
		})
	}
	senders.Wait()
	failing.Store(false)
	send("after")
	if len(refused) == 0 || len(accepted) < 10 {
		t.Fatalf("%d accepted, %d refused", len(accepted), len(refused))
	}
	for body, err := range refused {
		if r := smtpd.ReplyTo(err); r.Code != 452 || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v, %v", body, r, err)
		}
	}
	for range 2 {
		if n := b.Snapshot().Entries.Len(); n != len(accepted) {
			t.Errorf("%d messages, %d accepted", n, len(accepted))
		}
		for id, body := range accepted {
			if got := read(t, b, id); !strings.HasSuffix(got, body) {
				t.Errorf("%s: %q", body, got)
			}
		}
		s.Close()
		s = open(t, dir)
		b = box(t, s, vm)
	}
	gatewaytest.Must(t, b.SetFlags([]uint32{1}, Seen, 0))
}
