package smtpd

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// BenchmarkMessages receives messages from 16 connections, and keeps none: by this server, and by
// go-smtp's with the same work. msg/cpu-s counts the clients' time too: few writes of what is ready.
func BenchmarkMessages(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		body := []byte("Subject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78) + ".\r\n")
		b.Run(fmt.Sprintf("smtpd/%dKiB", size>>10), func(b *testing.B) {
			config := testConfig(sink{})
			config.Logger = new(gatewaytest.Log).Logger()
			benchmark(b, New(config).Serve, body)
		})
		b.Run(fmt.Sprintf("go-smtp/%dKiB", size>>10), func(b *testing.B) {
			s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return goSink{}, nil }))
			s.Domain, s.MaxMessageBytes = "lodge.test", 1<<20
			benchmark(b, s.Serve, body)
		})
	}
}

func benchmark(b *testing.B, serve func(net.Listener) error, body []byte) {
	b.Helper()
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(b, err)
	go func() { _ = serve(l) }()
	defer l.Close()
	h := &host{addr: l.Addr().String()}
	clients := make([]*client, 16)
	for i := range clients {
		clients[i] = h.dial(b)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var senders sync.WaitGroup
	b.ResetTimer()
	before := cpu()
	for _, c := range clients {
		senders.Go(func() {
			for left.Add(-1) >= 0 {
				if err := c.message(body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	b.ReportMetric(float64(b.N)/(cpu()-before).Seconds(), "msg/cpu-s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// message sends one message as most clients do, without PIPELINING.
func (c *client) message(body []byte) error {
	for _, part := range [][]byte{[]byte("MAIL FROM:<a@b.c>\r\n"), []byte("RCPT TO:<x@blog.lodge.test>\r\n"), []byte("DATA\r\n"), body} {
		if _, err := c.Write(part); err != nil {
			return err
		}
		if line, err := c.r.ReadSlice('\n'); err != nil || line[0] > '3' {
			return fmt.Errorf("got %q, %w", line, err)
		}
	}
	return nil
}

// sink is a Policy and a Message that keeps nothing.
type sink struct{ io.Writer }

func (sink) Sender(context.Context, Client, Envelope) error { return nil }

func (sink) Recipient(context.Context, Client, Envelope, Recipient) (gateway.Identity, error) {
	return blog, nil
}

func (sink) Begin(context.Context, Client, Envelope) (Message, error) { return sink{io.Discard}, nil }
func (sink) Commit() (string, error)                                  { return "id", nil }
func (sink) Abort(error)                                              {}

type goSink struct{}

func (goSink) Mail(string, *gosmtp.MailOptions) error { return nil }
func (goSink) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (goSink) Reset()                                 {}
func (goSink) Logout() error                          { return nil }

func (goSink) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
