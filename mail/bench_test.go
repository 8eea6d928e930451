package mail

import (
	"fmt"
	"net/smtp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
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

// BenchmarkVerdicts is the CPU time of a signed message of 4 KiB from one stranger, its client's included,
// with and without verdicts. DNS is asked for the first one.
func BenchmarkVerdicts(b *testing.B) {
	zone, key := sender(b)
	text := "From: a@example.com\r\nSubject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 64)
	signed := new(strings.Builder)
	gatewaytest.Must(b, dkim.Sign(signed, strings.NewReader(text), &dkim.SignOptions{
		Domain: "example.com", Selector: "s", Signer: key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	}))
	limits := smtpd.DefaultLimits()
	limits.Rates = smtpd.Rates{Conns: smtpd.Rate{PerSecond: 1e9, Burst: 1e9}, Messages: smtpd.Rate{PerSecond: 1e9, Burst: 1e9}, Refused: smtpd.Rate{PerSecond: 1, Burst: 1}}
	for name, change := range map[string]func(*Config){"with": checking(zone), "without": func(*Config) {}} {
		b.Run(name, func(b *testing.B) {
			f := start(b, b.TempDir(), func(c *Config) { change(c); c.smtpLimits = &limits })
			vm := f.add(b, "blog")
			c := helloFrom(b, honest, f.addr)
			gatewaytest.Must(b, c.SetDeadline(time.Time{}))
			before := cpu()
			for b.Loop() {
				c.mail("b@example.com", signed.String(), "250", vm)
			}
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
			if got := string(f.read(b, vm, f.list(b, vm)[0].QueueID)); strings.Contains(got, "dkim=pass") != (name == "with") {
				b.Error(got)
			}
		})
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
