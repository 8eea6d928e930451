package storage

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
	"lodge/storage/sigv4"
)

var expect100 = map[string]string{"Expect": "100-continue"}

// wire is a connection on which a test writes requests itself, piece by piece.
type wire struct {
	net.Conn
	t    *testing.T
	from *bufio.Reader
}

func (g guest) wire(t *testing.T) wire {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	gatewaytest.Must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return wire{c, t, bufio.NewReader(c)}
}

// head sends the head of a request, signed with a dummy key, and waits for 100 if header has an
// Expect.
func (w wire) head(method, path string, length int, header map[string]string) {
	w.t.Helper()
	w.start(method, path, length, header)
	if header["Expect"] != "" {
		if line := w.line(); line != "HTTP/1.1 100 Continue" {
			w.t.Fatalf("%s %s: got %q before a 100", method, path, line)
		}
		if line := w.line(); line != "" {
			w.t.Fatalf("the 100 has a header %q", line)
		}
	}
}

// start is head without waiting.
func (w wire) start(method, path string, length int, header map[string]string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.RemoteAddr().String()+path, http.NoBody)
	gatewaytest.Must(w.t, err)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	r.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	r.Header.Set("Content-Length", strconv.Itoa(length))
	gatewaytest.Must(w.t, sigv4.Sign(r, "dummy", "dummy", "us-east-1", time.Now()))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, r.Host)
	gatewaytest.Must(w.t, r.Header.Write(&b))
	w.send(b.String() + "\r\n")
}

func (w wire) send(text string) {
	w.t.Helper()
	_, err := io.WriteString(w, text)
	gatewaytest.Must(w.t, err)
}

func (w wire) line() string {
	w.t.Helper()
	line, err := w.from.ReadString('\n')
	gatewaytest.Must(w.t, err)
	return strings.TrimRight(line, "\r\n")
}

// answer reads the final answer.
func (w wire) answer() reply {
	w.t.Helper()
	res, err := http.ReadResponse(w.from, nil)
	gatewaytest.Must(w.t, err)
	defer func() { _ = res.Body.Close() }() // read to its end
	text, err := io.ReadAll(res.Body)
	gatewaytest.Must(w.t, err)
	return reply{res.StatusCode, string(text), res.Header}
}

// halfWrite begins the write of "hello" to a path, and waits until the server reads it.
func (g guest) halfWrite(t *testing.T, path string) wire {
	t.Helper()
	w := g.wire(t)
	w.head("PUT", path, 5, expect100)
	w.send("he")
	return w
}

// cut ends a write before its end. The server closes the connection when it is done with it.
func (w wire) cut() {
	w.t.Helper()
	gatewaytest.Must(w.t, w.Conn.(interface{ CloseWrite() error }).CloseWrite())
	rest, err := io.ReadAll(w.from)
	gatewaytest.Must(w.t, err)
	if strings.HasPrefix(string(rest), "HTTP/1.1 2") {
		w.t.Errorf("a write that is cut: %s", rest)
	}
}
