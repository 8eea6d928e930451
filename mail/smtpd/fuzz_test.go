package smtpd

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"lodge/gateway/gatewaytest"
)

// A reader never holds more than bufferBytes, loses no byte and adds none, ends each piece at the first
// line end or at the limit; and after an error it gives nothing, for ever.
func FuzzReader(f *testing.F) {
	f.Add([]byte("EHLO x\r\nDATA\r\n.\r\n"), []byte{0, 1, 200, 9})
	f.Add(bytes.Repeat([]byte("x"), 3*bufferBytes), []byte{255, 255, 3, 77})
	f.Add([]byte("\n\n\r\n"), []byte{1})
	f.Fuzz(func(t *testing.T, input, choices []byte) {
		src := io.Reader(bytes.NewReader(input))
		if len(choices) > 0 && choices[0]%2 == 1 {
			src = iotest.HalfReader(src)
		}
		if len(choices) > 1 && choices[1]%2 == 1 { // the error comes with the last bytes
			src = iotest.DataErrReader(src)
		}
		r := newReader(src, func() error { return nil })
		var got []byte
		for i := 0; ; i++ {
			n := 1
			if len(choices) > 0 {
				n += int(choices[i%len(choices)]) * 64
			}
			if len(choices) > 2 && choices[i%len(choices)]%7 == 3 {
				if err := r.skip(int64(n)); err != nil {
					break
				}
				got = append(got, input[len(got):len(got)+n]...)
				continue
			}
			p, err := r.piece(min(n, bufferBytes))
			if err != nil {
				break
			}
			lf := bytes.IndexByte(p, '\n')
			if len(p) == 0 || len(p) > n || lf >= 0 && lf != len(p)-1 || lf < 0 && len(p) != min(n, bufferBytes) {
				t.Fatalf("piece(%d) returned %q", n, p)
			}
			got = append(got, p...)
			if len(r.buf) != bufferBytes || r.buffered() > bufferBytes {
				t.Fatalf("%d bytes are held in %d", r.buffered(), len(r.buf))
			}
		}
		if !bytes.HasPrefix(input, got) {
			t.Fatalf("%q was read of %q", got, input)
		}
		if _, err := r.piece(1); err == nil || r.buffered() != 0 {
			t.Fatalf("after an error: %v, %d bytes held", err, r.buffered())
		}
	})
}

// speak runs a session over a pipe: the client sends input, closes its side, and everything that the
// server replied is returned once it has let go.
func speak(t *testing.T, server *Server, input []byte) string {
	t.Helper()
	near, far := net.Pipe()
	l := &onePipe{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- far
	var all sync.WaitGroup
	all.Go(func() { _ = server.Serve(l) })
	var replies strings.Builder
	banner := make(chan struct{})
	all.Go(func() {
		buf := make([]byte, 4096)
		for first := true; ; first = false {
			n, err := near.Read(buf)
			replies.Write(buf[:n])
			if first {
				close(banner)
			}
			if err != nil {
				return
			}
		}
	})
	<-banner
	_ = near.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, _ = near.Write(input) // the server may hang up at any byte
	_ = near.Close()
	_ = l.Close()
	all.Wait()
	return replies.String()
}

// onePipe is a listener that accepts one end of a pipe, and then waits until it is closed.
type onePipe struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *onePipe) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *onePipe) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *onePipe) Addr() net.Addr { return &net.TCPAddr{} }

// Any bytes in a session: it ends, without a panic; each message is kept or aborted, once; what is kept
// has lines of CRLF alone, and by DATA it was sent as it is but for dots; no reply confirms another.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		envelope + "DATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n",
		envelope + "BDAT 4\r\nab\r\nBDAT 0 LAST\r\nRSET\r\nNOOP\r\n",
		"MAIL FROM:<a@b.c>\r\nBDAT 99999999999 LAST\r\nSTARTTLS\r\nAUTH PLAIN =\r\n",
		"BDAT 6 LAST\r\nRSET\r\n" + envelope + "BDAT 2\r\nabcdefgh\r\n",
		"RCPT TO:<x@none.lodge.test>\r\nBDAT 153 LAST\r\n" + forged,
		envelope + "DATA\r\nx\n.\nx\r\n.\r\n" + forged,
		envelope + "DATA\r\nx\r\r\n.\r\n\r\n.\r\n", envelope + "data \r\n.\r\n" + forged,
		"MAIL FROM:<\"a\\\"b\"@b.c> SIZE=5 SMTPUTF8 RET=HDRS ENVID=+2B\r\nRCPT TO:<@a,@b:\u00e9@blog.lodge.test> NOTIFY=NEVER ORCPT=rfc822;x\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var s shelf
		var log gatewaytest.Log
		config := testConfig(&s)
		config.MaxMessageBytes, config.Logger = 4096, log.Logger()
		replies := speak(t, New(config), append([]byte("EHLO fuzz\r\n"), input...))
		if s.open != 0 || log.Count("panicked") > 0 {
			t.Fatalf("%d messages are open; %s", s.open, &log)
		}
		if said := strings.Count(replies, "OK: queued as"); said > len(s.kept) {
			t.Fatalf("%d messages acknowledged, %d kept", said, len(s.kept))
		}
		for _, m := range s.kept {
			plain := strings.ReplaceAll(m.Body, "\r\n", "")
			if strings.ContainsAny(plain, "\r\n") || len(m.Body) > 4096 || len(m.Envelope.To) == 0 {
				t.Fatalf("kept %+v", m)
			}
			undotted := strings.NewReplacer(".", "")
			if sent := string(input); !strings.Contains(strings.ToUpper(sent), "BDAT") && !strings.Contains(undotted.Replace(sent), undotted.Replace(m.Body)) {
				t.Fatalf("%q was not sent", m.Body)
			}
		}
	})
}

// An address that is fit for an envelope is fit for a header, and reads back as itself.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"<a@b.c>", "<>", "<postmaster>", `<"a b\"\\"@b>`, "<@a,@b:c@d>", "<a..b@[IPv6:::1]>", "<\u00e9@\u00e9>", "<a@b@c>", "<a@b.>", "<\x7f@b>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParsePath(s)
		if !ok {
			return
		}
		text := p.String()
		if strings.ContainsAny(text, "\r\n\x00<>") || len(p.Local)+len(p.Domain) > maxPathBytes {
			t.Errorf("%q became %q", s, text)
		}
		if again, ok := ParsePath("<" + text + ">"); !ok || again != p {
			t.Errorf("%q became %q, which reads as %+v, not %+v", s, text, again, p)
		}
	})
}

// Parameters are printable, and what xtext decodes to has no control characters.
func FuzzParams(f *testing.F) {
	f.Add(" SIZE=1 SMTPUTF8 ENVID=a+2B+0A")
	f.Add(" A== =B X=\x00")
	f.Fuzz(func(t *testing.T, s string) {
		params, ok := parseParams(s)
		for _, p := range params {
			if decoded, fine := unxtext(p.value); fine && strings.ContainsAny(decoded, "\r\n\x00") || !ok || p.key == "" {
				t.Errorf("%+v of %q", p, s)
			}
		}
	})
}
