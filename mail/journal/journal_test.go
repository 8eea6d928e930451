package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func received(n int) gateway.MailEvent {
	return gateway.MailEvent{Kind: gateway.MailReceived, QueueID: fmt.Sprint(n), From: "a@example.com", To: "x@blog.lodge.localhost", Bytes: 100}
}

func list(tb testing.TB, j *Journal, id gateway.ID, limit int) []gateway.MailEvent {
	tb.Helper()
	all, err := j.List(id, limit)
	gatewaytest.Must(tb, err)
	return all
}

// Events are listed at once, the newest first, also by the next process; a VM sees its own alone.
func TestList(t *testing.T) {
	t.Parallel()
	dir, blog, shop := t.TempDir(), gateway.NewID(), gateway.NewID()
	j := Open(dir, new(gatewaytest.Log).Logger())
	for n := range 5 {
		j.Add(blog, received(n))
	}
	j.Add(shop, received(9))
	for range 2 {
		all := list(t, j, blog, 0)
		if len(all) != 5 || all[0].QueueID != "4" || all[4].QueueID != "0" || all[0].From != "a@example.com" || all[0].Time.IsZero() {
			t.Errorf("%+v", all)
		}
		if two := list(t, j, blog, 2); len(two) != 2 || two[0].QueueID != "4" {
			t.Errorf("two of them: %+v", two)
		}
		j.Close()
		j = Open(dir, new(gatewaytest.Log).Logger())
	}
	gatewaytest.Must(t, j.Remove(blog))
	j.Add(blog, received(1))
	if all := list(t, j, blog, 0); len(all) != 0 {
		t.Errorf("after the removal: %+v", all)
	}
	if all := list(t, j, shop, 0); len(all) != 1 {
		t.Errorf("of another VM: %+v", all)
	}
	if _, err := os.Stat(filepath.Join(dir, blog.String())); !os.IsNotExist(err) {
		t.Errorf("its files: %v", err)
	}
}

// However much strangers are refused, the disk has 512 KiB of it at most, and the rest of the log stays.
func TestBounds(t *testing.T) {
	t.Parallel()
	dir, blog := t.TempDir(), gateway.NewID()
	j := Open(dir, new(gatewaytest.Log).Logger())
	j.Add(blog, received(1))
	long := strings.Repeat("\x1b\xff\u0436", 1000)
	for n := range 3000 {
		j.Add(blog, gateway.MailEvent{Kind: gateway.MailRefused, From: long, To: fmt.Sprint(n), Remote: long, Reply: long})
	}
	all := list(t, j, blog, 0)
	last := all[len(all)-1]
	if last.Kind != gateway.MailReceived {
		t.Errorf("the last of %d is %+v", len(all), last)
	}
	if first := all[0]; first.To != "2999" || len(first.From) > maxFieldBytes+3 || strings.Contains(first.From, "\x1b") || !utf8.ValidString(first.From) {
		t.Errorf("the first is %+v", first)
	}
	var bytes int64
	files, err := filepath.Glob(filepath.Join(dir, blog.String(), "*"))
	gatewaytest.Must(t, err)
	for _, f := range files {
		info, err := os.Stat(f)
		gatewaytest.Must(t, err)
		bytes += info.Size()
	}
	if len(files) != 3 || bytes > 4*maxFileBytes {
		t.Errorf("%d bytes in %v", bytes, files)
	}
}

// A line that a crash cut costs itself alone; a disk that takes nothing costs events, with one line in the
// daemon's log.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir, blog := t.TempDir(), gateway.NewID()
	j := Open(dir, new(gatewaytest.Log).Logger())
	j.Add(blog, received(1))
	j.Close()
	path := filepath.Join(dir, blog.String(), "mail")
	text, err := os.ReadFile(path)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(path, append(text, text[:20]...), 0o600))
	j = Open(dir, new(gatewaytest.Log).Logger())
	j.Add(blog, received(2))
	if all := list(t, j, blog, 0); len(all) != 2 || all[0].QueueID != "2" {
		t.Errorf("%+v", all)
	}
	log := new(gatewaytest.Log)
	blocked := filepath.Join(t.TempDir(), "file")
	gatewaytest.Must(t, os.WriteFile(blocked, nil, 0o600))
	j = Open(blocked, log.Logger())
	for range 1000 {
		j.Add(blog, received(3))
	}
	j.Close()
	if n := log.Count("log of mail not written"); n != 1 {
		t.Errorf("%d lines in the log: %s", n, log.String())
	}
}

// A list that has begun before a removal does not bring the log back.
func TestListWhileRemoved(t *testing.T) {
	t.Parallel()
	dir, id := t.TempDir(), gateway.NewID()
	j := Open(dir, new(gatewaytest.Log).Logger())
	j.Add(id, received(1))
	l := j.log(id)
	gatewaytest.Must(t, j.Remove(id))
	if _, err := l.read(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, id.String())); err == nil {
		t.Error("the log is on disk again")
	}
}
