package https_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"lodge/gateway/gatewaytest"
)

// rawH2 is a connection of HTTP/2 whose frames the test writes and reads.
type rawH2 struct {
	*http2.Framer
	t        *testing.T
	settings map[http2.SettingID]uint32 // of the server
}

// openH2 connects, and exchanges settings.
func openH2(t *testing.T, s *site, host string) *rawH2 {
	t.Helper()
	c := tls.Client(dialRaw(t, s.addr), &tls.Config{ServerName: host, RootCAs: s.roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	gatewaytest.Must(t, c.HandshakeContext(t.Context()))
	return startH2(t, c)
}

func startH2(t *testing.T, c net.Conn) *rawH2 {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, err := c.Write([]byte(http2.ClientPreface))
	gatewaytest.Must(t, err)
	h := &rawH2{Framer: http2.NewFramer(c, c), t: t, settings: map[http2.SettingID]uint32{}}
	h.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	gatewaytest.Must(t, h.WriteSettings())
	for {
		frame, err := h.ReadFrame()
		gatewaytest.Must(t, err)
		if set, ok := frame.(*http2.SettingsFrame); ok && !set.IsAck() {
			gatewaytest.Must(t, set.ForeachSetting(func(one http2.Setting) error { h.settings[one.ID] = one.Val; return nil }))
			gatewaytest.Must(t, h.WriteSettingsAck())
			return h
		}
	}
}

// ask sends a request of pairs of fields, and returns the status, or the name of the error that ends its
// stream.
func (h *rawH2) ask(stream uint32, end bool, fields ...string) string {
	h.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		gatewaytest.Must(h.t, encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	gatewaytest.Must(h.t, h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}))
	for {
		frame, err := h.ReadFrame()
		gatewaytest.Must(h.t, err)
		if frame.Header().StreamID != stream {
			continue
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		}
	}
}

// What is no WebSocket is refused: other protocols, a proxy's CONNECT, and names that lead to no VM.
func TestExtendedConnect(t *testing.T) {
	s := newSite(t)
	dials := func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.dials }
	s.app(s.vm("blog", public(0)...), 80, echo("app"))
	h := openH2(t, s, "blog.lodge.localhost")
	if h.settings[http2.SettingEnableConnectProtocol] != 1 {
		t.Errorf("the settings are %v", h.settings)
	}
	request := func(method, protocol, authority, path string) []string {
		return []string{":method", method, ":protocol", protocol, ":scheme", "https", ":authority", authority, ":path", path, "sec-websocket-version", "13"}
	}
	blog := "blog.lodge.localhost"
	stream := uint32(1)
	for _, tt := range []struct {
		name, want string
		fields     []string
	}{
		{"another protocol", "501", request("CONNECT", "connect-udp", blog, "/")},
		{"no protocol", "501", request("CONNECT", "", blog, "/")[0:2]},
		{"odd case", "501", request("CONNECT", "WebSocket", blog, "/")},
		{"another method", "501", request("GET", "websocket", blog, "/")},
		{"the gateway's pages", "501", request("CONNECT", "websocket", blog, "/.lodge/login")},
		{"another name", "421", request("CONNECT", "websocket", "shop.lodge.localhost", "/")},
		{"no path", "PROTOCOL_ERROR", request("CONNECT", "websocket", blog, "/")[:8]},
	} {
		if tt.name == "no protocol" {
			tt.fields = append(tt.fields, ":authority", blog)
		}
		if got := h.ask(stream, false, tt.fields...); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		stream += 2
	}
	if dials() != 0 {
		t.Errorf("%d connections to the VM", dials())
	}
	if got := openH2(t, s, "lodge.localhost").ask(1, false, request("CONNECT", "websocket", "lodge.localhost", "/")...); got != "501" {
		t.Errorf("the host's own page: %s", got)
	}
	if got := h.ask(stream, false, request("CONNECT", "websocket", blog, "/")...); got != "502" {
		t.Errorf("an app that does not upgrade: %s", got)
	}
}
