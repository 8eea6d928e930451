package imapd

import (
	"sync"
	"time"

	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/mail/mailbox"
)

// pushEvery is the least time between two pushes of changes of one mailbox, over all clients in IDLE there: waking each
// of 39 for each of a thousand messages a second would cost more than the messages do. The first change after a pause
// is pushed at once.
const pushEvery = time.Millisecond

// watchers are how many clients are in IDLE, by mailbox.
type watchers struct {
	mu sync.Mutex
	n  map[*mailbox.Box]int
}

func (w *watchers) add(box *mailbox.Box, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n[box] += n; w.n[box] == 0 {
		delete(w.n, box)
	}
}

// pause is how long one client of a mailbox waits after a push.
func (w *watchers) pause(box *mailbox.Box) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.n[box]) * pushEvery
}

// Idle sends the client each change as it happens, several at once if they come fast.
func (s *session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.box == nil {
		<-stop
		return nil
	}
	all := &s.server.watchers
	all.add(s.box, 1)
	defer all.add(s.box, -1)
	for {
		_, changed := s.box.Changed()
		if err := s.sendChanges(w, true); err != nil {
			return err
		}
		rested := time.NewTimer(all.pause(s.box))
		select {
		case <-stop:
			rested.Stop()
			return nil
		case <-rested.C:
		}
		select {
		case <-stop:
			return nil
		case <-changed:
		}
	}
}
