package https_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// odd2 is an odd request of HTTP/2. Of its fields, those that replace begin a field of base anew.
type odd2 struct {
	name    string
	replace []string // fields of base: name, value; without a value the field is left out
	fields  []string // further ones: name, value
	body    string
	trailer []string
	want    string // as in odd; "reset" is one of the stream or the connection; "-" is either that or 200
}

var oddHTTP2 = []odd2{
	{name: "plain", want: "200 200 200"},
	{name: "POST", want: "200 200 200", replace: []string{":method", "POST"}, body: "abcde"},
	{name: "no method", want: "reset reset 400", replace: []string{":method", ""}},
	{name: "no path", want: "reset reset 400", replace: []string{":path", ""}},
	{name: "no scheme", want: "reset reset 400", replace: []string{":scheme", ""}},
	{name: "no authority", want: "421 200 400", replace: []string{":authority", ""}},
	{name: "no authority, a host", want: "200 200 200", replace: []string{":authority", ""}, fields: []string{"host", "blog.lodge.localhost"}},
	{name: "two methods", want: "reset reset 400", fields: []string{":method", "POST"}},
	{name: "two paths", want: "reset reset 400", replace: []string{":path", "/odd", ":path", "/evil"}},
	{name: "two authorities", want: "reset reset 400", replace: []string{":authority", "blog.lodge.localhost", ":authority", "shop.lodge.localhost"}},
	{name: "two schemes", want: "reset reset 400", replace: []string{":scheme", "https", ":scheme", "http"}},
	{name: "pseudo-header after a field", want: "reset reset 400", fields: []string{"x", "y", ":path", "/evil"}},
	{name: "unknown pseudo-header", want: "reset reset 400", replace: []string{":evil", "x"}},
	{name: "pseudo-header of responses", want: "reset reset 400", replace: []string{":status", "200"}},
	{name: "empty path", want: "reset reset 400", replace: []string{":path", "\x00empty"}},
	{name: "path without a slash", want: "reset reset 400", replace: []string{":path", "odd"}},
	{name: "path that is a URL", want: "200 200 400", replace: []string{":path", "https://shop.lodge.localhost/odd"}},
	{name: "path that is an asterisk", want: "400 200 400", replace: []string{":path", "*"}},
	{name: "asterisk of OPTIONS", want: "200 200 400", replace: []string{":path", "*", ":method", "OPTIONS"}},
	{name: "path with a space", want: "200 200 400", replace: []string{":path", "/odd HTTP/1.1"}},
	{name: "query with a request line", want: "200 200 400", replace: []string{":path", "/odd?x HTTP/1.1"}},
	{name: "path with a request", want: "reset reset reset", replace: []string{":path", "/odd HTTP/1.1\r\nHost: blog.lodge.localhost\r\nX-Lodge-User: evil\r\n\r\nGET /evil"}},
	{name: "path with a line feed", want: "reset reset reset", replace: []string{":path", "/odd\nx"}},
	{name: "path with a NUL", want: "reset reset reset", replace: []string{":path", "/odd\x00"}},
	{name: "path with a fragment", want: "200 200 502", replace: []string{":path", "/odd?x#y"}},
	{name: "path that is not ASCII", want: "200 200 502", replace: []string{":path", "/odd?\xf6"}},
	{name: "path that begins with two slashes", want: "200 200 200", replace: []string{":path", "//evil.example/odd"}},
	{name: "method with a request", want: "reset reset reset", replace: []string{":method", "GET /evil HTTP/1.1\r\nx: y\r\n\r\nGET"}},
	{name: "method with a space", want: "400 200 400", replace: []string{":method", "GET /evil"}},
	{name: "method in lower case", want: "200 200 400", replace: []string{":method", "get"}},
	{name: "scheme http", want: "200 200 200", replace: []string{":scheme", "http"}},
	{name: "scheme that is a URL", want: "reset reset 400", replace: []string{":scheme", "https://shop.lodge.localhost/?"}},
	{name: "another authority", want: "421 200 200", replace: []string{":authority", "shop.lodge.localhost"}},
	{name: "authority in capital letters", want: "200 200 200", replace: []string{":authority", "BLOG.lodge.localhost.:443"}},
	{name: "authority with a user", want: "reset reset 200", replace: []string{":authority", "evil@blog.lodge.localhost"}},
	{name: "authority with a path", want: "421 200 400", replace: []string{":authority", "blog.lodge.localhost/x"}},
	{name: "authority with a field", want: "reset reset reset", replace: []string{":authority", "blog.lodge.localhost\r\nX-Lodge-User: evil"}},
	{name: "authority with a space", want: "421 200 400", replace: []string{":authority", "blog.lodge.localhost x"}},
	{name: "host and authority, equal", want: "200 200 400", fields: []string{"host", "blog.lodge.localhost"}},
	{name: "host and authority", want: "200 200 400", fields: []string{"host", "shop.lodge.localhost"}},
	{name: "authority and host", want: "421 200 400", replace: []string{":authority", "shop.lodge.localhost"}, fields: []string{"host", "blog.lodge.localhost"}},
	{name: "two hosts", want: "200 200 400", replace: []string{":authority", ""}, fields: []string{"host", "blog.lodge.localhost", "host", "shop.lodge.localhost"}},
	{name: "name in capital letters", want: "reset reset reset", fields: []string{"X-Odd", "y"}},
	{name: "name with a colon", want: "reset reset reset", fields: []string{"x-lodge-user: evil\r\nx", "y"}},
	{name: "name with a space", want: "reset reset reset", fields: []string{"transfer-encoding ", "chunked"}},
	{name: "name with a NUL", want: "reset reset reset", fields: []string{"x\x00", "y"}},
	{name: "empty name", want: "reset reset reset", fields: []string{"", "y"}},
	{name: "value with a field", want: "reset reset reset", fields: []string{"x", "y\r\nX-Lodge-User: evil"}},
	{name: "value with a request", want: "reset reset reset", fields: []string{"x", "y\r\n\r\nGET /evil HTTP/1.1\r\nHost: blog.lodge.localhost\r\n\r\n"}},
	{name: "value with a line feed", want: "reset reset reset", fields: []string{"x", "y\nX-Lodge-User: evil"}},
	{name: "value with a carriage return", want: "reset reset reset", fields: []string{"x", "y\rX-Lodge-User: evil"}},
	{name: "value with a NUL", want: "reset reset reset", fields: []string{"x", "y\x00"}},
	{name: "value with a space in front", want: "200 200 200", fields: []string{"x", " y "}},
	{name: "value that is not ASCII", want: "200 200 200", fields: []string{"x", "\xf6\xff"}},
	{name: "connection", want: "400 400 200", fields: []string{"connection", "x-lodge-user"}},
	{name: "connection: close", want: "400 400 200", fields: []string{"connection", "close"}},
	{name: "keep-alive", want: "400 400 200", fields: []string{"keep-alive", "timeout=5"}},
	{name: "proxy-connection", want: "400 400 200", fields: []string{"proxy-connection", "close"}},
	{name: "upgrade", want: "400 400 200", fields: []string{"upgrade", "h2c"}},
	{name: "transfer-encoding", want: "400 400 200", replace: []string{":method", "POST"}, fields: []string{"transfer-encoding", "chunked"}, body: "0\r\n\r\nGET /evil HTTP/1.1\r\nHost: blog.lodge.localhost\r\n\r\n"},
	{name: "te: trailers", want: "200 200 200", fields: []string{"te", "trailers"}},
	{name: "te: gzip", want: "400 400 200", fields: []string{"te", "gzip"}},
	{name: "content-length", want: "200 200 200", replace: []string{":method", "POST"}, fields: []string{"content-length", "5"}, body: "abcde"},
	{name: "content-length above the body", want: "400 400 400", replace: []string{":method", "POST"}, fields: []string{"content-length", "50"}, body: "abcde"},
	{name: "content-length below the body", want: "- - 400", replace: []string{":method", "POST"}, fields: []string{"content-length", "0"}, body: "GET /evil HTTP/1.1\r\nHost: blog.lodge.localhost\r\n\r\n"},
	{name: "content-length without a body", want: "200 200 400", replace: []string{":method", "POST"}, fields: []string{"content-length", "5"}},
	{name: "two content-lengths", want: "200 200 400", replace: []string{":method", "POST"}, fields: []string{"content-length", "5", "content-length", "50"}, body: "abcde"},
	{name: "content-length with a sign", want: "- - 400", replace: []string{":method", "POST"}, fields: []string{"content-length", "+5"}, body: "abcde"},
	{name: "content-length that is none", want: "- - 400", replace: []string{":method", "POST"}, fields: []string{"content-length", "x"}, body: "abcde"},
	{name: "expect", want: "100,200 100,200 200", replace: []string{":method", "POST"}, fields: []string{"expect", "100-continue"}, body: "abcde"},
	{name: "cookies in parts", want: "200 200 200", fields: []string{"cookie", "a=b", "cookie", "__Host-lodge-handoff=evil"}},
	{name: "claims of identity", want: "200 200 200", fields: []string{"x-lodge-user", "evil", "x_lodge_email", "evil", "x-forwarded-for", "evil", "forwarded", "for=evil", "x_real_ip", "evil", "remote-user", "evil"}},
	{name: "trailers", want: "200 200 reset", replace: []string{":method", "POST"}, fields: []string{"trailer", "x-sum, x-lodge-user"}, body: "abcde", trailer: []string{"x-sum", "1", "x-lodge-user", "evil"}},
	{name: "trailers with a pseudo-header", want: "reset reset reset", replace: []string{":method", "POST"}, body: "abcde", trailer: []string{":path", "/evil"}},
	{name: "trailers that frame", want: "reset reset reset", replace: []string{":method", "POST"}, fields: []string{"trailer", "content-length, x-sum"}, body: "abcde", trailer: []string{"content-length", "1", "host", "shop.lodge.localhost"}},
	{name: "trailers with a line break", want: "reset reset reset", replace: []string{":method", "POST"}, fields: []string{"trailer", "x-sum"}, body: "abcde", trailer: []string{"x-sum", "1\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"}},
	{name: "CONNECT", want: "501 200 400", replace: []string{":method", "CONNECT", ":path", "", ":scheme", ""}},
	{name: "CONNECT with a path", want: "reset reset 405", replace: []string{":method", "CONNECT"}},
	{name: "extended CONNECT of nothing", want: "501 200 400", replace: []string{":method", "CONNECT", ":protocol", "odd"}},
	{name: "value of 100 KiB", want: "431 200 reset", fields: []string{"x", strings.Repeat("x", 100<<10)}},
	{name: "2,000 cookies", want: "431 200 reset", fields: slices.Repeat([]string{"cookie", "a=" + strings.Repeat("b", 20)}, 2000)},
}

// block encodes the header of tt.
func (s *oddSite) block(tt odd2) []byte {
	base := []string{":method", "GET", ":scheme", "https", ":authority", "blog.lodge.localhost", ":path", "/odd"}
	var fields []string
	for i := 0; i < len(base); i += 2 {
		if !slices.Contains(tt.replace, base[i]) {
			fields = append(fields, base[i], base[i+1])
		}
	}
	for i := 0; i < len(tt.replace); i += 2 {
		if value := tt.replace[i+1]; value != "" {
			fields = append(fields, tt.replace[i], strings.TrimSuffix(value, "\x00empty"))
		}
	}
	name, value, _ := strings.Cut(s.cookie, ": ")
	return encodeFields(slices.Concat(fields, []string{strings.ToLower(name), value}, tt.fields))
}

func encodeFields(fields []string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a Buffer takes all
	}
	return block.Bytes()
}

// send2 sends a request on a connection of its own, and returns the status of the answer.
func (s *oddSite) send2(addr string, tt odd2) (status string, apps []string) {
	s.tb.Helper()
	c := s.dialOdd(addr, "h2")
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	f := http2.NewFramer(c, c)
	go func() { // it fails when the server has answered already
		c.Write([]byte(http2.ClientPreface))
		f.WriteSettings()
		block := s.block(tt)
		first := block[:min(len(block), 16<<10)]
		block = block[len(first):]
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(block) == 0, EndStream: tt.body == ""})
		for len(block) > 0 {
			part := block[:min(len(block), 16<<10)]
			block = block[len(part):]
			f.WriteContinuation(1, len(block) == 0, part)
		}
		if tt.body != "" {
			f.WriteData(1, tt.trailer == nil, []byte(tt.body))
		}
		if tt.trailer != nil {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encodeFields(tt.trailer), EndHeaders: true, EndStream: true})
		}
	}()
	return s.answer2(http2.NewFramer(nil, c))
}

// answer2 reads the answer to the request of stream 1.
func (s *oddSite) answer2(f *http2.Framer) (status string, apps []string) {
	s.tb.Helper()
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var all []string
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return strings.Join(append(all, "reset"), ","), apps
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			all = append(all, frame.PseudoValue("status"))
			for _, field := range frame.RegularFields() {
				if field.Name == "app" {
					apps = append(apps, field.Value)
				}
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			if len(all) > 0 {
				return strings.Join(all, ","), apps
			}
			return "reset", apps
		}
		if ended {
			return strings.Join(all, ","), apps
		}
	}
}

// TestOddRequestsOfHTTP2 is TestOddRequests for what HTTP/2 can carry. The guest gets HTTP/1.1.
func TestOddRequestsOfHTTP2(t *testing.T) {
	t.Parallel()
	s := newOddSite(t)
	if *oddRandom > 0 {
		s.nginx = startNginx(t, newRecorder(t).addr)
	}
	for _, tt := range oddHTTP2 {
		s.checkBoth(t, odd{name: tt.name, want: tt.want}, "", func(addr string) (string, []string) { return s.send2(addr, tt) })
	}
	s.checkEnd(t)
}
