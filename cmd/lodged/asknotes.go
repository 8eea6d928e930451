package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
)

const (
	maxAskNotes       = 64 // that wait to be written
	maxAskNotesPeople = 5  // who get one about a request
	askNoteTime       = 30 * time.Second
)

// askNotes mails those who may manage a VM that somebody asks for access to it. The page that was asked on waits for
// none of it; what is too much is left out, since the request itself is on the pages.
type askNotes struct {
	directory *gateway.Directory
	people    *people.Book
	notify    func(context.Context, gateway.Notice) error
	url       func(id string) string // of the page that answers a request
	log       *slog.Logger

	queue chan gateway.AccessRequest
	ended chan struct{}
	once  sync.Once
	stop  chan struct{}
}

func newAskNotes(directory *gateway.Directory, book *people.Book, log *slog.Logger) *askNotes {
	return &askNotes{
		directory: directory, people: book, log: log,
		queue: make(chan gateway.AccessRequest, maxAskNotes), ended: make(chan struct{}), stop: make(chan struct{}),
	}
}

// asked takes a request, and returns at once.
func (n *askNotes) asked(q gateway.AccessRequest) {
	select {
	case n.queue <- q:
	default:
	}
}

// start begins to send; notify and url are set before.
func (n *askNotes) start() {
	go func() {
		defer close(n.ended)
		for {
			select {
			case <-n.stop:
				return
			case q := <-n.queue:
				n.send(q)
			}
		}
	}()
}

// shutdown ends it. Requests whose notes are not on disk yet get none.
func (n *askNotes) shutdown(context.Context) error {
	n.once.Do(func() { close(n.stop) })
	<-n.ended
	return nil
}

func (n *askNotes) send(q gateway.AccessRequest) {
	m, ok := n.directory.ByID(q.VM)
	if !ok || m.Desired == gateway.Removed {
		return
	}
	proof := "They typed the address: it may be anyone."
	if q.Proven() {
		proof = "They have logged in with the address."
	}
	text := fmt.Sprintf("%s asks to open %s.\n%s\n\nAnswer it here:\n\n%s\n\nThere may be more requests than notes like this one.\n", q.Address, q.Host, proof, n.url(q.ID))
	ctx, cancel := context.WithTimeout(context.Background(), askNoteTime)
	defer cancel()
	for _, p := range n.managers(m) {
		err := n.notify(ctx, gateway.Notice{Kind: gateway.NoticeAccess, VM: m.ID, To: p.Mail, Subject: "Request to open " + q.Host, Text: text})
		if err != nil {
			n.log.Debug("note of a request not sent", gateway.LogVM(m.Identity), "person", p.Mail, "err", err)
		}
	}
}

// managers are those who may manage a VM: those it was granted to before the owners of the host, who may manage all.
func (n *askNotes) managers(m gateway.VM) (all []people.Person) {
	var owners []people.Person
	for _, p := range n.people.All() {
		switch {
		case n.people.IsOwner(p.ID):
			owners = append(owners, p)
		case n.people.Level(p.ID, m).Covers(gateway.Manage):
			all = append(all, p)
		}
	}
	all = append(all, owners...)
	return all[:min(len(all), maxAskNotesPeople)]
}
