package https_test

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 has it
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"lodge/gateway/gatewaytest"
)

// Opcodes of frames (RFC 6455 §5.2).
const (
	wsContinuation = 0x0
	wsText         = 0x1
	wsBinary       = 0x2
	wsClose        = 0x8
	wsPing         = 0x9
	wsPong         = 0xa
	wsFin          = 0x80
)

// wsFrame is a frame; one of a client is masked (§5.3).
func wsFrame(first byte, payload []byte, masked bool) []byte {
	frame := []byte{first}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, mask|byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, mask|126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, mask|127), uint64(n))
	}
	if !masked {
		return append(frame, payload...)
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	frame = append(frame, key[:]...)
	for i, b := range payload {
		frame = append(frame, b^key[i%4])
	}
	return frame
}

// wsFrames are the frames of one case, for either side.
func wsFrames(masked bool, frames ...any) []byte {
	var all []byte
	for i := 0; i < len(frames); i += 2 {
		all = append(all, wsFrame(byte(frames[i].(int)), []byte(frames[i+1].(string)), masked)...)
	}
	return all
}

// The gateway changes no byte of a WebSocket: cases after those of the Autobahn test suite, in both
// directions. What is wrong is for the app to refuse.
func TestWebSocketFramesPassUnchanged(t *testing.T) {
	large := string(bytes.Repeat([]byte("large "), 1<<20/6))
	closing := func(code uint16, reason string) string {
		return string(binary.BigEndian.AppendUint16(nil, code)) + reason
	}
	cases := map[string][]any{
		"empty text":                   {wsFin | wsText, ""},
		"125 bytes":                    {wsFin | wsText, large[:125]},
		"126 bytes":                    {wsFin | wsBinary, large[:126]},
		"65535 bytes":                  {wsFin | wsBinary, large[:65535]},
		"65536 bytes":                  {wsFin | wsBinary, large[:65536]},
		"1 MiB":                        {wsFin | wsBinary, large},
		"ping and pong":                {wsFin | wsPing, "are you there?", wsFin | wsPong, "are you there?"},
		"unsolicited pong":             {wsFin | wsPong, ""},
		"fragments":                    {wsText, "one ", wsContinuation, "two ", wsFin | wsContinuation, "three"},
		"ping amid fragments":          {wsText, "one ", wsFin | wsPing, "x", wsFin | wsContinuation, "two"},
		"empty fragments":              {wsBinary, "", wsContinuation, "", wsFin | wsContinuation, ""},
		"compressed (RSV1)":            {wsFin | 0x40 | wsText, "\xf2\x48\xcd\xc9\xc9\x07\x00"},
		"reserved bits and opcodes":    {wsFin | 0x70 | 0x3, "x", wsFin | 0xb, "y"},
		"not UTF-8":                    {wsFin | wsText, "\xce\xba\xed\xa0\x80"},
		"continuation of nothing":      {wsFin | wsContinuation, "x"},
		"ping of 126 bytes":            {wsFin | wsPing, large[:126]},
		"close without a code":         {wsFin | wsClose, ""},
		"close 1000":                   {wsFin | wsClose, closing(1000, "done")},
		"close 1011":                   {wsFin | wsClose, closing(1011, "")},
		"close 4999":                   {wsFin | wsClose, closing(4999, "the app's own")},
		"close 1005, which may not be": {wsFin | wsClose, closing(1005, "")},
		"text after close":             {wsFin | wsClose, closing(1000, ""), wsFin | wsText, "late"},

		"4 MiB in one frame":             {wsFin | wsBinary, strings.Repeat(large[:1<<10], 4<<10)},
		"fragments of 997 bytes":         fragments(large[:1<<20/3], 997),
		"pings amid every fragment":      {wsText, "a", wsFin | wsPing, "1", wsContinuation, "b", wsFin | wsPing, "2", wsFin | wsPong, "", wsFin | wsContinuation, "c"},
		"fragmented ping":                {wsText, "one ", wsPing, "in", wsFin | wsContinuation, "parts", wsFin | wsContinuation, "two"},
		"ten pings":                      slices.Repeat([]any{wsFin | wsPing, "ping"}, 10),
		"close amid fragments":           {wsText, "one ", wsFin | wsClose, closing(1001, "going away"), wsFin | wsContinuation, "two"},
		"not UTF-8 at a fragment's end":  {wsText, "\xce", wsContinuation, "\xba\xf4", wsFin | wsContinuation, "\x90\x80\x80"},
		"UTF-8 split between fragments":  {wsText, "\xf0\x9f", wsFin | wsContinuation, "\x98\x80"},
		"noncharacters and an empty BOM": {wsFin | wsText, "\xef\xbf\xbe\xef\xbb\xbf\x00"},
		"close of one byte":              {wsFin | wsClose, "\x03"},
		"close with 123 bytes of reason": {wsFin | wsClose, closing(1000, large[:123])},
		"close with 124 bytes of reason": {wsFin | wsClose, closing(1000, large[:124])},
		"close with a reason not UTF-8":  {wsFin | wsClose, closing(1000, "\xce\xba\xed\xa0\x80")},
		"two closes":                     {wsFin | wsClose, closing(1000, ""), wsFin | wsClose, closing(1001, "")},
	}
	for _, code := range []uint16{0, 999, 1001, 1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1014, 1015, 1016, 2999, 3000, 3999, 4000, 5000, 65535} {
		cases[fmt.Sprint("close ", code)] = []any{wsFin | wsClose, closing(code, "")}
	}
	s := newWebSockets(t)
	for version, road := range wsRoads() {
		for name, frames := range cases {
			t.Run(version+"/"+name, func(t *testing.T) {
				client, app := s.open(t, road)
				passUnchanged(t, client, app, frames)
			})
		}
	}
}

// fragments are a message in parts of n bytes.
func fragments(message string, n int) []any {
	frames := []any{wsBinary, ""}
	for part := range slices.Chunk([]byte(message), n) {
		frames = append(frames, wsContinuation, string(part))
	}
	return append(frames, wsFin|wsContinuation, "")
}

// passUnchanged sends frames in both directions.
func passUnchanged(t *testing.T, client, app *wsEnd, frames []any) {
	t.Helper()
	fromClient, fromApp := wsFrames(true, frames...), wsFrames(false, frames...)
	for _, way := range []struct {
		from, to *wsEnd
		say      string
		sent     []byte
	}{{client, app, "client to app", fromClient}, {app, client, "app to client", fromApp}} {
		for chunk := range slices.Chunk(way.sent, max(len(way.sent)/3, 1)) { // frames cross segments
			go func() { _, _ = way.from.Write(chunk) }() // what arrives is compared
			got := make([]byte, len(chunk))
			if n, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, chunk) {
				t.Fatalf("%s: %d bytes arrived, %v; want the %d sent", way.say, n, err, len(chunk))
			}
		}
	}
	_ = app.Close() // as a server does after the closing handshake (§7.1.1)
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after the app's close: %d bytes, %v", n, err)
	}
}

// wsEnd is one end of a WebSocket, after the upgrade.
type wsEnd struct {
	io.Reader
	io.WriteCloser
	end func() error // closes the sending half
}

// wsRoad opens a WebSocket at a URL, with pairs of header fields.
type wsRoad func(t *testing.T, s *site, target string, header ...string) (*wsEnd, *http.Response)

// wsRoads open a WebSocket through the gateway, by each version of HTTP that carries one.
func wsRoads() map[string]wsRoad {
	return map[string]wsRoad{"h1": dialWS1, "h2": dialWS2}
}

// dialWS1 asks for a WebSocket by an upgrade of HTTP/1.1.
func dialWS1(t *testing.T, s *site, target string, header ...string) (*wsEnd, *http.Response) {
	t.Helper()
	u := mustParse(t, target)
	c, err := handshake(s, s.addr, u.Hostname())
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some are closed already
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	var more strings.Builder
	for i := 0; i < len(header); i += 2 {
		more.WriteString(header[i] + ": " + header[i+1] + "\r\n")
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", u.RequestURI(), u.Host, more.String())
	answers := bufio.NewReader(c)
	res, err := http.ReadResponse(answers, nil)
	gatewaytest.Must(t, err)
	return &wsEnd{answers, c, c.CloseWrite}, res
}

// dialWS2 asks for one by an extended CONNECT of HTTP/2.
func dialWS2(t *testing.T, s *site, target string, header ...string) (*wsEnd, *http.Response) {
	t.Helper()
	u := mustParse(t, target)
	raw := dialRaw(t, s.addr)
	_ = raw.SetDeadline(time.Now().Add(time.Minute)) // after the limit on slow clients
	c := tls.Client(raw, &tls.Config{ServerName: u.Hostname(), RootCAs: s.roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	gatewaytest.Must(t, c.HandshakeContext(t.Context()))
	over, err := new(http2.Transport).NewClientConn(c) //nolint:staticcheck // net/http's refuses a field named ":protocol"
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = over.Close() }) // some are closed already
	body, sent := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, target, body)
	gatewaytest.Must(t, err)
	r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := over.RoundTrip(r)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = res.Body.Close() }) // some are closed already
	return &wsEnd{res.Body, sent, sent.Close}, res
}

// upgraded accepts a WebSocket in an app.
func upgraded(w http.ResponseWriter, r *http.Request) (*wsEnd, error) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455 has it
	for name, value := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Accept": base64.StdEncoding.EncodeToString(sum[:]),
	} {
		w.Header().Set(name, value)
	}
	w.WriteHeader(http.StatusSwitchingProtocols)
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	return &wsEnd{buffered, c, c.(*net.TCPConn).CloseWrite}, nil
}

// webSockets is a site whose VM blog accepts WebSockets.
type webSockets struct {
	*site
	ends chan *wsEnd // of the app
}

func newWebSockets(t *testing.T) *webSockets {
	t.Helper()
	s := &webSockets{newSite(t), make(chan *wsEnd, 1)}
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		end, err := upgraded(w, r)
		if err != nil {
			t.Error(err)
		}
		s.ends <- end
	}))
	return s
}

// open opens a WebSocket through the gateway.
func (s *webSockets) open(t *testing.T, road wsRoad) (client, app *wsEnd) {
	t.Helper()
	client, res := road(t, s.site, s.url("blog"), "Sec-WebSocket-Extensions", "permessage-deflate")
	if res.StatusCode != http.StatusSwitchingProtocols && (res.ProtoMajor == 1 || res.StatusCode != http.StatusOK) {
		t.Fatal(res.Status)
	}
	app = <-s.ends
	t.Cleanup(func() { _ = app.Close() }) // some are closed already
	return client, app
}
