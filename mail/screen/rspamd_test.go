package screen

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// advised asks a server that plays rspamd.
func advised(t *testing.T, config Config, serve http.HandlerFunc) (Advice, string, *gatewaytest.Log) {
	t.Helper()
	server := httptest.NewServer(serve)
	defer server.Close()
	config.Rspamd = server.URL
	log := new(gatewaytest.Log)
	s, err := New(config, t.TempDir(), log.Logger())
	gatewaytest.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	const text = "Subject: x\r\n\r\nx\r\n"
	advice, told := s.Advise(ctx, Message{
		Remote: netip.MustParseAddr("::ffff:192.0.2.1"), Helo: "x\u00fcy", From: "a@b.c", To: []string{"d@e.f", "g@h.i"},
		Bytes: int64(len(text)), Content: strings.NewReader(text),
	})
	return advice, told, log
}

// What rspamd answers is followed as far as the operator wants it.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"action": "no action"}`:       `0  0 `,
		`{"action": "greylist"}`:        `0  0 `,
		`{"action": "something"}`:       `0  0 `,
		`{"action": "add header"}`:      `1  1 `,
		`{"action": "rewrite subject"}`: `1  1 `,
		`{"action": "quarantine"}`:      `1  1 `,
		`{"action": "discard"}`:         `1  1 `,
		`{"action": "soft reject", "messages": {"smtp_message": "Try again\r\n250 OK"}}`: `2 Try again??250 OK 2 Try again??250 OK`,
		`{"action": "reject", "score": 20.0, "messages": {}}`:                            `1  3 `,
	} {
		var got []string
		for _, reject := range []bool{false, true} {
			advice, text, _ := advised(t, Config{Reject: reject}, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				asked := fmt.Sprintln(r.Method, r.URL, r.ContentLength, len(body), r.Header["Ip"], r.Header["Helo"], r.Header["From"], r.Header["Rcpt"])
				if asked != "POST /checkv2 17 17 [192.0.2.1] [x?y] [<a@b.c>] [<d@e.f> <g@h.i>]\n" {
					t.Error(asked)
				}
				fmt.Fprint(w, answer)
			})
			got = append(got, fmt.Sprint(int(advice), " ", text))
		}
		if all := strings.Join(got, " "); all != want {
			t.Errorf("%s: %q, want %q", answer, all, want)
		}
	}
}

// A server that fails, or is hostile, refuses nothing, and costs bounded time and memory.
func TestBadAdvice(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]http.HandlerFunc{
		"silent": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client leaves
			<-r.Context().Done()
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) { pour(w, `{"action": "reject", "x": "`) },
		"spaces":  func(w http.ResponseWriter, _ *http.Request) { pour(w, "        ") },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `reject`) },
		"types":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"action": ["reject"]}`) },
		"error": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"action": "reject"}`, http.StatusInternalServerError)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/else", http.StatusTemporaryRedirect)
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"action": "reject"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if advice, text, log := advised(t, Config{Reject: true}, serve); advice != Accept || text != "" || log.Count("rspamd not reached") != 1 {
				t.Errorf("%v, %q, %s", advice, text, log)
			}
		})
	}
}

// endless is a message of which the reads are counted.
type endless struct{ reads int }

func (e *endless) Read(p []byte) (int, error) {
	e.reads++
	return len(p), nil
}

// The content is the caller's again once there is advice, though the server did not wait for all of
// it: the race detector shows if it is read.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}))
	defer server.Close()
	log := new(gatewaytest.Log)
	s, err := New(Config{Rspamd: server.URL}, t.TempDir(), log.Logger())
	gatewaytest.Must(t, err)
	for range 20 {
		content := new(endless)
		if advice, _ := s.Advise(t.Context(), Message{Bytes: 1 << 40, Content: content}); advice != Accept {
			t.Errorf("advice %v", advice)
		}
		content.reads = 0
	}
	if log.Count("rspamd not reached") != 1 {
		t.Error(log)
	}
}

func pour(w io.Writer, what string) {
	for {
		if _, err := io.WriteString(w, what); err != nil {
			return
		}
	}
}

// A failure is logged when it begins and ends, not for each message.
func TestRspamdDown(t *testing.T) {
	t.Parallel()
	up := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"action": "no action"}`)
	}))
	defer server.Close()
	log := new(gatewaytest.Log)
	s, err := New(Config{Rspamd: server.URL}, t.TempDir(), log.Logger())
	gatewaytest.Must(t, err)
	for i := range 6 {
		up = i >= 3
		s.Advise(t.Context(), Message{Content: strings.NewReader("")})
	}
	if log.Count("rspamd not reached") != 1 || log.Count("rspamd answered again") != 1 {
		t.Error(log)
	}
}
