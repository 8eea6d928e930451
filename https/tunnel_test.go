package https_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// ended waits for the other side to end the WebSocket: nil means that it did not.
func (e *wsEnd) ended() error {
	end := make(chan error, 1)
	go func() {
		_, err := e.Read(make([]byte, 1))
		end <- err
	}()
	select {
	case err := <-end:
		return err
	case <-time.After(time.Second):
		return nil
	}
}

// A WebSocket of HTTP/2 is one of HTTP/1.1 to the app, with the same identity and the same log.
func TestTunnelIsAnUpgrade(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.AccessLog = true })
	blog := s.vm("blog")
	asked := make(chan *http.Request, 1)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/denied":
			http.Error(w, "not today", http.StatusForbidden)
			return
		case "/odd":
			r.Header.Set("Sec-WebSocket-Key", "another")
		}
		w.Header().Set("Sec-WebSocket-Protocol", "chat")
		if c, err := upgraded(w, r); err == nil {
			asked <- r
			_, _ = io.Copy(c, c) // until the client hangs up
			_ = c.Close()        // as above
		}
	}))
	visitor := s.client()
	s.login(visitor, blog)
	session := visitor.Jar.Cookies(mustParse(t, s.url("blog")))[0].String()
	if _, res := dialWS2(t, s, s.url("blog")+"/"); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger: %s", res.Status)
	}
	if _, res := dialWS2(t, s, s.url("blog")+"/", "Cookie", session, "Origin", s.url("shop")); res.StatusCode != http.StatusForbidden {
		t.Errorf("a page of another VM: %s", res.Status)
	}
	_, res := dialWS2(t, s, s.url("blog")+"/denied", "Cookie", session)
	if text, err := io.ReadAll(res.Body); res.StatusCode != http.StatusForbidden || string(text) != "not today\n" {
		t.Errorf("an app that refuses: %s, %q, %v", res.Status, text, err)
	}
	if _, res := dialWS2(t, s, s.url("blog")+"/odd", "Cookie", session); res.StatusCode != http.StatusBadGateway {
		t.Errorf("an app that accepts another key: %s", res.Status)
	}
	<-asked
	client, res := dialWS2(t, s, s.url("blog")+"/chat?room=secret1", "Cookie", session, "Cookie", "own=1", "X-Lodge-User", "eve@example.org",
		"Sec-WebSocket-Key", "mine", "Sec-WebSocket-Protocol", "chat", "Origin", s.url("blog"))
	if res.StatusCode != http.StatusOK || res.Header.Get("Sec-WebSocket-Protocol") != "chat" || len(res.Header["Sec-Websocket-Accept"])+len(res.Header["Upgrade"]) > 0 {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	r := <-asked
	got := fmt.Sprint(r.Method, r.URL, r.Proto, r.Header["Upgrade"], r.Header["X-Lodge-User"], r.Header["Cookie"], r.Header["X-Forwarded-Proto"], len(r.Header[":protocol"]), r.Header.Get("Origin"))
	if want := fmt.Sprint("GET", "/chat?room=secret1", "HTTP/1.1", []string{"websocket"}, []string{owner}, []string{"own=1"}, []string{"https"}, 0, s.url("blog")); got != want {
		t.Errorf("the app got %s, want %s", got, want)
	}
	_, err := client.Write([]byte("\x81\x02hi"))
	gatewaytest.Must(t, err)
	if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
		t.Error(err)
	}
	gatewaytest.Must(t, client.end())
	if line := s.accessLine("/chat"); !strings.Contains(line, "vm=blog method=CONNECT host=blog.lodge.localhost path=/chat status=200 bytes=4 ") || strings.Contains(line, "secret") {
		t.Errorf("the log has %s", line)
	}
}

// The end of one half leaves the other, and a reset reaches the app.
func TestWebSocketHalves(t *testing.T) {
	for version, road := range wsRoads() {
		t.Run(version, func(t *testing.T) {
			client, app := newWebSockets(t).open(t, road)
			sent := wsFrames(true, wsFin|wsClose, "\x03\xe8")
			_, err := client.Write(sent)
			gatewaytest.Must(t, err)
			gatewaytest.Must(t, client.end())
			if got, err := io.ReadAll(app); err != nil || string(got) != string(sent) {
				t.Errorf("the app read %x, %v", got, err)
			}
			late := wsFrames(false, wsFin|wsText, "late", wsFin|wsClose, "\x03\xe8")
			_, err = app.Write(late)
			gatewaytest.Must(t, err)
			gatewaytest.Must(t, app.Close())
			if got, err := io.ReadAll(client); err != nil || string(got) != string(late) {
				t.Errorf("the client read %x, %v", got, err)
			}
		})
		t.Run(version+"/reset", func(t *testing.T) {
			client, app := newWebSockets(t).open(t, road)
			if closer, ok := client.Reader.(io.Closer); ok { // resets a stream of HTTP/2
				gatewaytest.Must(t, closer.Close())
			}
			_ = client.Close() // as above
			if _, err := app.Read(make([]byte, 1)); err == nil {
				t.Error("the app read something")
			}
		})
	}
}

// A visitor who may open the page no longer loses the tunnel, also without reading.
func TestTunnelOfSilentReaderEnds(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.AccessLog = true })
	blog := s.vm("blog", public(0)...)
	full := make(chan struct{})
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgraded(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = c.WriteCloser.(interface{ SetWriteDeadline(time.Time) error }).SetWriteDeadline(time.Now().Add(300 * time.Millisecond)) // fails for a closed one
		_, _ = io.Copy(c, neverEnding{})                                                                                            // until nobody reads
		close(full)
	}))
	if _, res := dialWS2(t, s, s.url("blog")+"/socket"); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	<-full
	_, err := s.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Shares = nil; return nil })
	gatewaytest.Must(t, err)
	s.accessLine("/socket") // the request is over
	if s.cut() != 0 {
		t.Error("it ended by the limit on slow clients alone")
	}
}

type neverEnding struct{}

func (neverEnding) Read(b []byte) (int, error) { return len(b), nil }

// Shutdown does not wait for tunnels, which may last for ever.
func TestShutdownEndsTunnels(t *testing.T) {
	s := newSite(t)
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(endless))
	client, res := dialWS2(t, s, s.url("blog")+"/socket")
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := client.ended(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the tunnel: %v, want an error", err)
	}
}
