package mail

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
)

// one is a listener that accepts one end of a pipe, and then waits until it is closed.
type one struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newOne(c net.Conn) *one {
	l := &one{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- c
	return l
}

func (l *one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *one) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *one) Addr() net.Addr { return &net.TCPAddr{} }

// session feeds input to a server over a pipe, hangs up, and waits until the server has let go. A
// panic that escapes, and a session that does not end, are failures.
func session(t *testing.T, serve func(net.Listener) error, input []byte, vm gateway.Identity) {
	t.Helper()
	client, server := net.Pipe()
	l := newOne(gateway.NewConn(server, vm))
	var all sync.WaitGroup
	all.Go(func() { _ = serve(l) })
	_, _ = client.Read(make([]byte, 1)) // of the banner: who speaks before it is refused
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, client)
	}()
	_ = client.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = client.Write(input) // the server may hang up at any byte
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	<-drained
	_ = client.Close()
	_ = l.Close()
	all.Wait()
}

// Any bytes in an SMTP session: no panic, an end, and nothing half accepted: every message in the
// mailbox is whole.
func FuzzSMTPSession(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@blog.lodge.localhost>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n"))
	f.Add([]byte("EHLO x\r\nMAIL FROM:<> SIZE=5\r\nRCPT TO:<\"a b\"@blog.lodge.localhost>\r\nBDAT 4\r\nab\r\nBDAT 0 LAST\r\nRSET\r\nNOOP\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("HELO x\r\nQUIT\r\nMAIL FROM:<a@b>\r\nBDAT 99999999999 LAST\r\nSTARTTLS\r\nAUTH PLAIN =\r\n"))
	f.Add([]byte("EHLO x\r\nBDAT 6 LAST\r\nRSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@blog.lodge.localhost>\r\nBDAT 2\r\nabcdefgh\r\n"))
	limits := smtpd.DefaultLimits()
	limits.Greet = 0
	server := start(f, f.TempDir(), func(c *Config) { c.smtpLimits = &limits })
	vm := server.add(f, "blog")
	f.Fuzz(func(t *testing.T, input []byte) {
		session(t, server.ServeSMTP, input, gateway.Identity{})
		for _, m := range server.list(t, vm) {
			if n := len(server.read(t, vm, m.QueueID)); int64(n) != m.Bytes {
				t.Fatalf("message of %d bytes is listed with %d", n, m.Bytes)
			}
		}
		box, err := server.store.Box(vm.ID)
		gatewaytest.Must(t, err)
		for _, e := range box.Snapshot().Entries.All() {
			gatewaytest.Must(t, box.Expunge([]uint32{e.UID}))
		}
	})
}

// Any bytes in an IMAP session: no panic escapes, and the session ends.
func FuzzIMAPSession(f *testing.F) {
	f.Add([]byte("a SELECT INBOX\r\nb FETCH 1:* (FLAGS BODY[] BODY[1.2.HEADER]<0.5> ENVELOPE BODYSTRUCTURE)\r\nc LOGOUT\r\n"))
	f.Add([]byte("a EXAMINE inbox\r\nb UID STORE 1:* -FLAGS.SILENT (\\Seen)\r\nc UID EXPUNGE 1\r\nd CLOSE\r\ne FETCH 1 ALL\r\n"))
	f.Add([]byte("a SELECT INBOX\r\nb UID SEARCH RETURN (MIN COUNT) OR NOT TEXT x SINCE 1-Jan-2020 LARGER 3 $\r\nc IDLE\r\nDONE\r\nd STATUS INBOX (MESSAGES SIZE)\r\n"))
	f.Add([]byte("a APPEND INBOX {3}\r\nabc\r\nb LIST (SUBSCRIBED) \"\" (%) RETURN (STATUS (UNSEEN))\r\nc COPY 1 x\r\nd NAMESPACE\r\n"))
	server := start(f, f.TempDir(), nil)
	vm := server.add(f, "blog")
	server.sendRaw(f, vm, multipart)
	f.Fuzz(func(t *testing.T, input []byte) {
		session(t, server.ServeIMAP, input, vm)
	})
}
