package post

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A request ends whatever the server does, and only 2xx is a success.
func TestAnswers(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for name, tt := range map[string]struct {
		serve http.HandlerFunc
		code  int // 0: any error but a status; -1: none
	}{
		"good":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, -1},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) }, 302},
		"error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, strings.Repeat("x", 10<<20)) // the client leaves
		}, 418},
		"large": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 10<<20)) // the client leaves
		}, -1},
		"switch": {func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
				<-hang
			}
		}, 101},
		"hang": {func(http.ResponseWriter, *http.Request) { <-hang }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(tt.serve)
			server.Start()
			t.Cleanup(server.CloseClientConnections)
			c := &Client{Step: 500 * time.Millisecond, Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
			}}
			err := c.Do(t.Context(), Request{URL: "http://blog.lodge:8080/hook", Header: http.Header{}, Body: strings.NewReader("hello"), Bytes: 5})
			status, is := errors.AsType[*StatusError](err)
			switch {
			case tt.code == -1 && err != nil, tt.code == 0 && (err == nil || is), tt.code > 0 && (!is || status.Code != tt.code):
				t.Errorf("error %v", err)
			case err != nil && len(err.Error()) > 400:
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if name == "hang" && !errors.Is(err, ErrSlow) {
				t.Errorf("error %v, want ErrSlow", err)
			}
		})
	}
}
