package relay

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
	"lodge/mail/verdict"
)

// BenchmarkStart opens a queue of 100,000 letters of ten VMs: the time until it takes mail in, until all is read, and the
// memory that the letters have then.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	boxes, err := mailbox.Open(b.TempDir(), slog.New(slog.DiscardHandler))
	gatewaytest.Must(b, err)
	b.Cleanup(boxes.Close)
	store, err := mailbox.Open(dir+"/queue", slog.New(slog.DiscardHandler))
	gatewaytest.Must(b, err)
	head, err := record{From: "a@b.c", VM: gateway.Identity{ID: gateway.ID{15: 9}, Name: "blog"}}.encode()
	gatewaytest.Must(b, err)
	for vm := range 10 {
		staged, err := store.Stage()
		gatewaytest.Must(b, err)
		var letters []mailbox.Letter
		for i := range 10_000 {
			letters = append(letters, mailbox.Letter{
				VM: gateway.ID{15: byte(20 + vm)}, QueueID: mailbox.NewQueueID(time.Now()), From: "a@b.c", Rcpt: fmt.Sprintf("user%d@d%d.example", i, i%100), Head: head, Received: time.Now(),
			})
		}
		gatewaytest.Must(b, store.Commit(staged, letters))
		staged.Remove()
	}
	store.Close()
	for b.Loop() {
		before := inUse()
		begun := time.Now()
		q, err := New(Config{
			Dir: dir, Domain: us, Mailboxes: boxes, Resolver: verdict.NewResolver("", "127.0.0.1:9"), Limits: Limits{}, Times: fast(), Logger: slog.New(slog.DiscardHandler),
		})
		gatewaytest.Must(b, err)
		b.ReportMetric(float64(time.Since(begun).Microseconds())/1000, "ms-to-open")
		q.readAll(context.Background())
		b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms-to-all")
		b.ReportMetric(float64(inUse()-before)/(1<<20), "MiB")
		if q.Waiting() != 100_000 {
			b.Errorf("%d wait", q.Waiting())
		}
		q.Close()
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
