package https_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// strictRequest is a request as parseStrict reads it.
type strictRequest struct {
	method, target  string
	header, trailer []field
	body            string
}

type field struct{ name, value string }

// errShort is the error of parseStrict for bytes that a valid request may begin with.
var errShort = errors.New("the request is incomplete")

// parseStrict reads one request of HTTP/1.1 from b, to the letter of RFC 9112: nothing that a
// recipient MAY accept is accepted. It shares no code with net/http.
func parseStrict(b []byte) (r strictRequest, rest []byte, err error) {
	line, rest, err := strictLine(b)
	if err != nil {
		return r, nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || parts[2] != "HTTP/1.1" {
		return r, nil, fmt.Errorf("request line %q", line)
	}
	for _, c := range []byte(parts[1]) {
		if c <= ' ' || c > '~' || c == '#' {
			return r, nil, fmt.Errorf("request target %q", parts[1])
		}
	}
	r.method, r.target = parts[0], parts[1]
	if r.target[0] != '/' && (r.target != "*" || r.method != "OPTIONS") {
		return r, nil, fmt.Errorf("target %q of %s", r.target, r.method)
	}
	if r.header, rest, err = strictFields(rest); err != nil {
		return r, nil, err
	}
	lengths, encodings := r.values("content-length"), r.values("transfer-encoding")
	switch {
	case len(lengths)+len(encodings) > 1:
		return r, nil, fmt.Errorf("framing: Content-Length %q, Transfer-Encoding %q", lengths, encodings)
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || strings.Trim(lengths[0], "0123456789") != "" {
			return r, nil, fmt.Errorf("Content-Length %q", lengths[0])
		}
		if uint64(len(rest)) < n {
			return r, nil, errShort
		}
		r.body, rest = string(rest[:n]), rest[n:]
	case len(encodings) == 1 && encodings[0] != "chunked":
		return r, nil, fmt.Errorf("Transfer-Encoding %q", encodings[0])
	case len(encodings) == 1:
		return r.chunks(rest)
	}
	return r, rest, nil
}

// chunks reads a chunked body and its trailers.
func (r strictRequest) chunks(b []byte) (strictRequest, []byte, error) {
	for {
		line, rest, err := strictLine(b)
		if err != nil {
			return r, nil, err
		}
		n, err := strconv.ParseUint(line, 16, 63)
		if err != nil || strings.Trim(line, "0123456789abcdefABCDEF") != "" {
			return r, nil, fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			r.trailer, rest, err = strictFields(rest)
			return r, rest, err
		}
		if uint64(len(rest)) < n+2 {
			return r, nil, errShort
		}
		if string(rest[n:n+2]) != "\r\n" {
			return r, nil, fmt.Errorf("chunk ends with %q", rest[n:n+2])
		}
		r.body += string(rest[:n])
		b = rest[n+2:]
	}
}

// strictLine reads a line, which ends with CR LF and has neither elsewhere.
func strictLine(b []byte) (string, []byte, error) {
	end := bytes.IndexAny(b, "\r\n")
	if end < 0 || end+1 == len(b) && b[end] == '\r' {
		return "", nil, errShort
	}
	if b[end] != '\r' || b[end+1] != '\n' {
		return "", nil, fmt.Errorf("line break in %q", b[:end+1])
	}
	return string(b[:end]), b[end+2:], nil
}

// strictFields reads header or trailer fields, up to the empty line.
func strictFields(b []byte) (all []field, rest []byte, err error) {
	for rest = b; ; {
		var line string
		if line, rest, err = strictLine(rest); err != nil || line == "" {
			return all, rest, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, nil, fmt.Errorf("field %q", line)
		}
		for _, c := range []byte(value) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return nil, nil, fmt.Errorf("value of %q", line)
			}
		}
		all = append(all, field{strings.ToLower(name), strings.Trim(value, " \t")})
	}
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

func (r strictRequest) values(name string) (all []string) {
	for _, f := range r.header {
		if f.name == name {
			all = append(all, f.value)
		}
	}
	return all
}

// wellFormed checks a request that person sent to blog: one Host, which is the routed name, one
// identity, which is the gateway's, and nothing that the client claimed. What the tests claim has
// the word "evil" in it.
func (r strictRequest) wellFormed(person []string) error {
	hosts := r.values("host")
	if len(hosts) != 1 || routedName(hosts[0]) != "blog.lodge.localhost" {
		return fmt.Errorf("Host %q", hosts)
	}
	for _, name := range []string{"x-lodge-user", "x-lodge-email"} {
		if got := r.values(name); !slices.Equal(got, person) {
			return fmt.Errorf("%s: %q", name, got)
		}
	}
	for name, want := range map[string]string{"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": hosts[0]} {
		if got := r.values(name); !slices.Equal(got, []string{want}) {
			return fmt.Errorf("%s: %q", name, got)
		}
	}
	for _, f := range slices.Concat(r.header, r.trailer) {
		if strings.Contains(f.value, "evil") && claimsIdentity(f.name) || f.name == "cookie" && hasOurCookie(f.value) {
			return fmt.Errorf("%s: %s", f.name, f.value)
		}
	}
	for _, f := range r.trailer {
		if claimsIdentity(f.name) || slices.Contains([]string{"host", "content-length", "transfer-encoding"}, f.name) {
			return fmt.Errorf("trailer %s: %s", f.name, f.value)
		}
	}
	return nil
}

// hasOurCookie reports whether a Cookie field has one of the gateway's.
func hasOurCookie(value string) bool {
	return slices.ContainsFunc(strings.Split(value, ";"), func(pair string) bool {
		name, _, _ := strings.Cut(strings.ToLower(pair), "=")
		return slices.Contains([]string{"__host-lodge", "__host-lodge-handoff"}, strings.TrimSpace(name))
	})
}

func routedName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// claimsIdentity compares as CGI programs do, and wider.
func claimsIdentity(name string) bool {
	plain := strings.Map(func(c rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", c) {
			return c
		}
		return '-'
	}, strings.ToLower(name))
	return strings.HasPrefix(plain, "x-lodge-") || strings.HasPrefix(plain, "x-forwarded-") || slices.Contains([]string{
		"x-lodge", "forwarded", "x-real-ip", "remote-user", "x-remote-user", "true-client-ip", "cf-connecting-ip", "x-client-ip", "x-original-url", "proxy",
	}, plain)
}

// recorder is an app that records the bytes of its connections, and answers requests that are
// well-formed. Others it never answers.
type recorder struct {
	addr  string
	mu    sync.Mutex
	conns []*recording
	log   []strictRequest // of all connections, in the order of their arrival
}

// recording is one connection.
type recording struct {
	all       []byte
	rest      []byte // after the last request
	requests  int
	err       error // of the bytes in rest
	continued bool  // 100 was sent for rest
	ended     bool
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	l := listen(t)
	rec := &recorder{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			got := &recording{}
			rec.mu.Lock()
			rec.conns = append(rec.conns, got)
			rec.mu.Unlock()
			go rec.record(c, got) // to the end of c, which is the gateway's
		}
	}()
	return rec
}

// record reads c to its end, and answers what it reads.
func (rec *recorder) record(c net.Conn, got *recording) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		answers, bad := rec.took(got, buf[:n], err != nil)
		if err != nil || bad != nil {
			return
		}
		if _, err := c.Write([]byte(answers)); err != nil {
			return
		}
	}
}

// took records bytes of a connection, and returns the answers to the requests that they complete.
// The header App of an answer is the request's target.
func (rec *recorder) took(got *recording, b []byte, ended bool) (answers string, err error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	got.all, got.rest, got.ended = append(got.all, b...), append(got.rest, b...), ended
	for got.err == nil && len(got.rest) > 0 {
		r, rest, err := parseStrict(got.rest)
		if errors.Is(err, errShort) {
			if !got.continued && strings.Contains(string(got.rest), "Expect: 100-continue\r\n") {
				got.continued = true
				answers += "HTTP/1.1 100 Continue\r\n\r\n"
			}
			break
		}
		if got.err = err; err != nil {
			break
		}
		got.rest, got.continued = rest, false
		got.requests++
		rec.log = append(rec.log, r)
		answers += "HTTP/1.1 200 OK\r\nApp: " + r.target + "\r\nContent-Length: 2\r\n\r\nok"
	}
	return answers, got.err
}

// since returns the requests after the first n, of all connections.
func (rec *recorder) since(n int) []strictRequest {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.log[n:])
}

// reused returns how many requests came on a connection that had carried another one.
func (rec *recorder) reused() (n int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, c := range rec.conns {
		n += max(0, c.requests-1)
	}
	return n
}

// malformed returns the first connection with bytes that are not well-formed requests, in sequence.
// The last one may be cut off by the end of the connection.
func (rec *recorder) malformed() error {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, c := range rec.conns {
		if c.err != nil {
			return fmt.Errorf("%w, in %q", c.err, c.all)
		}
		if len(c.rest) > 0 && !c.ended {
			return fmt.Errorf("%q was left on an open connection", c.rest)
		}
	}
	return nil
}
