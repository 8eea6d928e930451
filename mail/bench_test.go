package mail

import (
	"fmt"
	"log/slog"
	"net/smtp"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
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

// BenchmarkStart starts a server of 50 VMs with 10,000 messages each, all in the guests or all waiting: the
// time until it runs, until the first 250 of a message, and the memory that it has then.
func BenchmarkStart(b *testing.B) {
	for _, delivered := range []bool{true, false} {
		b.Run(fmt.Sprintf("delivered=%v", delivered), func(b *testing.B) {
			dir := b.TempDir()
			vms := fifty(b, dir, delivered)
			for b.Loop() {
				begin := time.Now()
				addr, cmd, kill := child(b, dir, vms)
				b.ReportMetric(float64(time.Since(begin).Milliseconds()), "ms-to-port")
				c, err := smtp.Dial(addr)
				gatewaytest.Must(b, err)
				gatewaytest.Must(b, sendOne(c, "x@vm7."+domain, []byte("Subject: x\r\n\r\nx\r\n")))
				b.ReportMetric(float64(time.Since(begin).Milliseconds()), "ms-to-250")
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
				gatewaytest.Must(b, err)
				for line := range strings.Lines(string(status)) {
					if f := strings.Fields(line); f[0] == "VmRSS:" {
						kib, _ := strconv.Atoi(f[1])
						b.ReportMetric(float64(kib)/1024, "MiB-rss")
					}
				}
				kill()
			}
		})
	}
}

// fifty fills the mailboxes of 50 VMs.
func fifty(b *testing.B, dir string, delivered bool) (vms []gateway.ID) {
	b.Helper()
	store, err := mailbox.Open(dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(b, err)
	defer store.Close()
	for range 50 {
		vm := gateway.NewID()
		vms = append(vms, vm)
		for range 2 {
			staged, err := store.Stage()
			gatewaytest.Must(b, err)
			var letters []mailbox.Letter
			for range 5000 {
				letters = append(letters, mailbox.Letter{VM: vm, QueueID: mailbox.NewQueueID(time.Now()), From: "a@b.c", Head: strings.Repeat("x", 500)})
			}
			gatewaytest.Must(b, store.Commit(staged, letters))
			staged.Remove()
		}
		if box, err := store.Box(vm); err != nil {
			b.Fatal(err)
		} else if delivered {
			gatewaytest.Must(b, box.Delivered(10_000))
		}
	}
	return vms
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
