package mail

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// done has the answers to a client's messages, by their tokens.
type done struct {
	mu                      sync.Mutex
	appended, copied, moved map[string]bool
}

func (d *done) record(in map[string]bool, token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in[token] = true
}

// A server that is killed again and again while clients append, copy and move loses nothing that it has
// confirmed. A message that was being moved is in the one folder or the other, or in both.
func TestKillIMAP(t *testing.T) {
	t.Parallel()
	dir, vm := t.TempDir(), gateway.NewID()
	told := &done{appended: map[string]bool{}, copied: map[string]bool{}, moved: map[string]bool{}}
	for round := range *kills {
		addr, _, kill := child(t, dir, []gateway.ID{vm}, childIMAP+"=1")
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() { file(addr, fmt.Sprintf("token-%d-%d", round, i), told) })
		}
		wait := time.NewTimer(time.Duration(30+rand.IntN(300)) * time.Millisecond)
		<-wait.C
		kill()
		clients.Wait()
	}
	store, err := mailbox.Open(dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	defer store.Close()
	folders, err := store.Folders(vm)
	gatewaytest.Must(t, err)
	sent, archive, trash := tokensIn(t, folders, "Sent"), tokensIn(t, folders, "Archive"), tokensIn(t, folders, "Trash")
	for token := range told.appended {
		if sent[token]+trash[token] == 0 || sent[token] > 1 || trash[token] > 1 {
			t.Errorf("%s: %d in Sent, %d in Trash", token, sent[token], trash[token])
		}
		if told.copied[token] && archive[token] != 1 {
			t.Errorf("%s was copied: %d in Archive", token, archive[token])
		}
		if told.moved[token] && (trash[token] != 1 || sent[token] != 0) {
			t.Errorf("%s was moved: %d in Sent, %d in Trash", token, sent[token], trash[token])
		}
	}
	t.Logf("%d appended, %d copied, %d moved", len(told.appended), len(told.copied), len(told.moved))
	if len(told.moved) == 0 {
		t.Error("nothing was moved")
	}
}

// file appends, copies and moves messages until the server is gone. Every third is a file of its own on disk.
func file(addr, name string, told *done) {
	conn, err := net.Dial("tcp", addr) //nolint:noctx // the server is killed
	if err != nil {
		return
	}
	c := imapclient.New(conn, nil)
	defer c.Close()
	if _, err := c.Select("Sent", nil).Wait(); err != nil {
		return
	}
	for n := 0; ; n++ {
		token := fmt.Sprintf("%s-%d", name, n)
		text := "Subject: " + token + "\r\n\r\nx\r\n"
		if n%3 == 2 {
			text += strings.Repeat(strings.Repeat("y", 998)+"\r\n", 1100)
		}
		cmd := c.Append("Sent", int64(len(text)), nil)
		if _, err := cmd.Write([]byte(text)); err != nil {
			return
		}
		if err := cmd.Close(); err != nil {
			return
		}
		data, err := cmd.Wait()
		if err != nil {
			return
		}
		told.record(told.appended, token)
		if _, err := c.Copy(imap.UIDSetNum(data.UID), "Archive").Wait(); err != nil {
			return
		}
		told.record(told.copied, token)
		if _, err := c.Move(imap.UIDSetNum(data.UID), "Trash").Wait(); err != nil {
			return
		}
		told.record(told.moved, token)
	}
}

// tokensIn counts the messages of a folder by their subjects, and opens each.
func tokensIn(t *testing.T, folders *mailbox.Folders, name string) map[string]int {
	t.Helper()
	box, err := folders.Open(name)
	gatewaytest.Must(t, err)
	found := map[string]int{}
	for _, e := range box.Snapshot().Entries.All() {
		c, err := box.Open(e.UID)
		gatewaytest.Must(t, err)
		first := make([]byte, 100)
		n, _ := c.ReadAt(first, 0) // a short message has fewer
		gatewaytest.Must(t, c.Close())
		subject, _, _ := strings.Cut(string(first[:n]), "\r\n")
		found[strings.TrimPrefix(subject, "Subject: ")]++
	}
	return found
}
