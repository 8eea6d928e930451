package deliver

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"lodge/gateway"
)

// dialog is a server that greets, and then answers each line of its client with the next reply; a reply
// of "" is none. What follows 354 is sent once the message has ended. At the end it is silent.
func dialog(greeting string, replies ...string) func(net.Conn) {
	return func(c net.Conn) {
		talk(c, greeting, replies...)
		io.Copy(io.Discard, c)
	}
}

func talk(c net.Conn, greeting string, replies ...string) {
	io.WriteString(c, greeting)
	lines := bufio.NewScanner(c)
	for _, reply := range replies {
		if !lines.Scan() {
			return
		}
		if after, is := strings.CutPrefix(reply, data); is {
			io.WriteString(c, data)
			for lines.Scan() && lines.Text() != "." {
				continue
			}
			reply = after
		}
		io.WriteString(c, reply)
	}
}

// trickle sends a text one byte at a time, for ever.
func trickle(c net.Conn, text string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		<-tick.C
		if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
			return
		}
	}
}

const (
	hi   = "220 hi\r\n"
	ok   = "250 ok\r\n"
	data = "354 go\r\n"
)

// hostileServers are what an SMTP or LMTP server in a guest may do.
var hostileServers = map[string]func(net.Conn){
	"sends nothing":         func(net.Conn) {},
	"closes at once":        func(c net.Conn) { c.Close() },
	"endless banner":        func(c net.Conn) { pour(c, []byte("220-hi\r\n")) },
	"one endless line":      func(c net.Conn) { pour(c, []byte(strings.Repeat("2", 4096))) },
	"garbage":               func(c net.Conn) { pour(c, []byte{0xff, 0, '\r', '\n', 0xfe}) },
	"SSH":                   func(c net.Conn) { pour(c, []byte("SSH-2.0-OpenSSH_9.2\r\n")) },
	"no service":            dialog("554 no\r\n"),
	"slow banner":           func(c net.Conn) { trickle(c, "220-") },
	"silent after banner":   dialog(hi),
	"refuses EHLO":          dialog(hi, "550 no\r\n", "550 no\r\n"),
	"endless EHLO":          func(c net.Conn) { io.WriteString(c, hi); pour(c, []byte("250-X\r\n")) },
	"silent after MAIL":     dialog(hi, ok, ""),
	"closes after MAIL":     func(c net.Conn) { talk(c, hi, ok); c.Close() },
	"wrong code for MAIL":   dialog(hi, ok, "999 what\r\n"),
	"no code for MAIL":      dialog(hi, ok, "okay\r\n"),
	"354 for RCPT":          dialog(hi, ok, ok, data),
	"250 for DATA":          dialog(hi, ok, ok, ok, ok),
	"slow reply to RCPT":    func(c net.Conn) { talk(c, hi, ok, ok); trickle(c, "250-") },
	"endless reply to RCPT": func(c net.Conn) { talk(c, hi, ok, ok); pour(c, []byte("250-ok\r\n")) },
	"reads no message":      func(c net.Conn) { talk(c, hi, ok, ok, ok, ""); io.WriteString(c, data) },
	"closes in the message": func(c net.Conn) { talk(c, hi, ok, ok, ok); io.WriteString(c, data); c.Close() },
	"never answers":         dialog(hi, ok, ok, ok, data),
	"closes for an answer":  func(c net.Conn) { talk(c, hi, ok, ok, ok, data); c.Close() },
	"endless answer":        func(c net.Conn) { talk(c, hi, ok, ok, ok, data); pour(c, []byte("250-ok\r\n")) },
	"354 for an answer":     dialog(hi, ok, ok, ok, data+data),
	"600 for an answer":     func(c net.Conn) { talk(c, hi, ok, ok, ok, data); io.WriteString(c, "600 no\r\n") },
}

// hostileSites are what a web server in a guest may do.
var hostileSites = map[string]func(net.Conn){
	"sends nothing":       func(net.Conn) {},
	"closes at once":      func(c net.Conn) { c.Close() },
	"garbage":             func(c net.Conn) { pour(c, []byte{0xff, 0, '\r', '\n', 0xfe}) },
	"one endless line":    func(c net.Conn) { pour(c, []byte(strings.Repeat("H", 4096))) },
	"endless header":      func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); pour(c, []byte("A: b\r\n")) },
	"endless header line": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nA: "); pour(c, []byte("aaaaaaa")) },
	"endless 1xx":         func(c net.Conn) { pour(c, []byte("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n")) },
	"another protocol": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
	},
	"slow header":       func(c net.Conn) { trickle(c, "HTTP/1.1 200 OK\r\n") },
	"half a header":     func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-"); c.Close() },
	"a wrong status":    func(c net.Conn) { io.WriteString(c, "HTTP/1.1 2000 OK\r\n\r\n") },
	"a negative status": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 -20 OK\r\n\r\n") },
	"two lengths": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
	},
	"a redirect":           func(c net.Conn) { io.WriteString(c, "HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:1/\r\n\r\n") },
	"an endless error":     func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n"); pour(c, []byte("no no no")) },
	"a silent error":       func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n") },
	"SMTP":                 dialog(hi, ok),
	"an error, then reset": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 503 No\r\n\r\n"); c.Close() },
}

// A server in a guest that is made to hurt costs one failed attempt in bounded time and memory. What it
// sends is never taken for a delivery, nor for a refusal of the message.
func TestHostileRoutes(t *testing.T) {
	for setting, servers := range map[string]map[string]func(net.Conn){
		"smtp": hostileServers, "lmtp": hostileServers, "http://80/mail": hostileSites,
	} {
		for name, behave := range servers {
			t.Run(setting+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := hostileWorker(t, func(c net.Conn, _ *ssh.ServerConfig) { behave(c) })
				m, _ := w.config.Directory.ByID(w.id)
				m.Mail.Route = setting
				done := make(chan error, 1)
				go func() { done <- attemptBy(t.Context(), w, m) }()
				select {
				case err := <-done:
					if err == nil || isRefusal(err) || len(shorten(err.Error())) > 310 {
						t.Errorf("attempt: %v", err)
					}
				case <-time.After(60 * time.Second):
					t.Error("hangs")
				}
			})
		}
	}
}

// attemptBy is one delivery, of a message that does not fit in the buffers of the sockets.
func attemptBy(ctx context.Context, w *worker, m gateway.VM) error {
	route, err := wayInto(m).open(ctx, w.config, m)
	if err != nil {
		return err
	}
	defer route.Close()
	text := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("y", 62)+"\r\n", 256<<10/64)
	return route.Deliver(ctx, Message{QueueID: "queueid", From: "a@b.c", Rcpt: "x@y.z", Bytes: int64(len(text)), Content: strings.NewReader(text)})
}

// Every reply to a message has its meaning, by each of the protocols.
func TestReplies(t *testing.T) {
	type outcome int
	const (
		delivered outcome = iota
		waits
		refused
	)
	by := map[string]func(code string) func(net.Conn){
		"smtp": func(code string) func(net.Conn) { return dialog(hi, ok, ok, ok, data+code+" x\r\n") },
		"lmtp": func(code string) func(net.Conn) { return dialog(hi, ok, ok, ok, data+code+" x\r\n") },
		"http://80/mail": func(code string) func(net.Conn) {
			return func(c net.Conn) {
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.Copy(io.Discard, r.Body)
				}
				io.WriteString(c, "HTTP/1.1 "+code+" x\r\nContent-Length: 0\r\n\r\n")
			}
		},
	}
	for _, row := range []struct {
		setting, code string
		want          outcome
	}{
		{"smtp", "250", delivered},
		{"smtp", "251", delivered},
		{"smtp", "421", waits},
		{"smtp", "451", waits},
		{"smtp", "550", refused},
		{"smtp", "599", refused},
		{"lmtp", "250", delivered},
		{"lmtp", "421", waits},
		{"lmtp", "452", waits},
		{"lmtp", "550", refused},
		{"http://80/mail", "200", delivered},
		{"http://80/mail", "204", delivered},
		{"http://80/mail", "302", waits},
		{"http://80/mail", "400", refused},
		{"http://80/mail", "404", refused},
		{"http://80/mail", "408", waits},
		{"http://80/mail", "429", waits},
		{"http://80/mail", "500", waits},
	} {
		t.Run(row.setting+" "+row.code, func(t *testing.T) {
			t.Parallel()
			w := hostileWorker(t, func(c net.Conn, _ *ssh.ServerConfig) { by[row.setting](row.code)(c) })
			w.config.Times.Step, w.config.Times.Verdict = time.Minute, time.Minute
			m, _ := w.config.Directory.ByID(w.id)
			m.Mail.Route = row.setting
			err := attemptBy(t.Context(), w, m)
			got := waits
			if err == nil {
				got = delivered
			} else if isRefusal(err) {
				got = refused
			}
			if got != row.want {
				t.Errorf("outcome %d, want %d: %v", got, row.want, err)
			}
		})
	}
}

// A route of a later version is no route: mail waits.
func TestUnknownRoute(t *testing.T) {
	w := hostileWorker(t, func(net.Conn, *ssh.ServerConfig) {})
	m, _ := w.config.Directory.ByID(w.id)
	m.Mail.Route = "pigeon"
	if err := attemptBy(t.Context(), w, m); !isConnect(err) || gateway.KindOf(err) != gateway.KindInvalid {
		t.Error(err)
	}
}
