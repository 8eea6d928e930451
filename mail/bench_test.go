package mail

import (
	"fmt"
	"net/smtp"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkAccept is how many 4 KiB messages per second are accepted, synced, over real SMTP from
// 64 senders at once, each with one connection.
func BenchmarkAccept(b *testing.B) {
	f := start(b, b.TempDir(), nil)
	for i := range 4 {
		f.add(b, fmt.Sprint("vm", i))
	}
	body := []byte("Subject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 64))
	var next atomic.Int64
	b.SetParallelism(32) // times GOMAXPROCS
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c, err := smtp.Dial(f.addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		for pb.Next() {
			if err := sendOne(c, fmt.Sprintf("x@vm%d.%s", next.Add(1)%4, domain), body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func sendOne(c *smtp.Client, to string, body []byte) error {
	if err := c.Mail("a@b.c"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(body); err != nil {
		return err
	}
	return w.Close()
}
