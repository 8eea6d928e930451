package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/gateway/control/controltest"
)

// raw makes requests that the Client would not.
func raw(t *testing.T, socket, method, path, body string) (*http.Response, gateway.Error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req := must(http.NewRequestWithContext(t.Context(), method, "http://lodged"+path, strings.NewReader(body)))(t)
	resp := must(client.Do(req))(t)
	defer resp.Body.Close()
	var e gateway.Error
	text := must(io.ReadAll(resp.Body))(t)
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(text, &e); err != nil {
			t.Errorf("%s %s: %d %q is not an error in JSON", method, path, resp.StatusCode, text)
		}
	}
	return resp, e
}

func TestInvalidRequests(t *testing.T) {
	h, _ := start(t)
	h.Add(t, "hello")
	tests := []struct {
		name, method, path, body string
		status                   int
		kind                     gateway.Kind
	}{
		{"no such verb", "GET", "/v1/nothing", "", 404, gateway.KindNotFound},
		{"root", "GET", "/", "", 404, gateway.KindNotFound},
		{"wrong method", "DELETE", "/v1/vms", "", 405, gateway.KindInvalid},
		{"state changed by GET", "GET", "/v1/vms/hello/stop", "", 405, gateway.KindInvalid},
		{"not JSON", "PUT", "/v1/vms/hello/ports/1", "public", 400, gateway.KindInvalid},
		{"unknown field", "PUT", "/v1/vms/hello/ports/1", `{"visibility":"public","people":[]}`, 400, gateway.KindInvalid},
		{"two bodies", "POST", "/v1/vms/hello/stop", `{}{}`, 400, gateway.KindInvalid},
		{"port 65536", "PUT", "/v1/vms/hello/ports/65536", `{"visibility":"public"}`, 400, gateway.KindInvalid},
		{"port http", "PUT", "/v1/vms/hello/ports/http", `{"visibility":"public"}`, 400, gateway.KindInvalid},
		{"huge", "POST", "/v1/vms/hello/login", `{"person":"` + strings.Repeat("x", 70<<10) + `"}`, 400, gateway.KindInvalid},
		{"no name", "POST", "/v1/vms", ``, 400, gateway.KindInvalid},
		{"taken", "POST", "/v1/vms", `{"name":"hello"}`, 409, gateway.KindTaken},
		{"console without an upgrade", "GET", "/v1/vms/hello/console", "", 400, gateway.KindInvalid},
		{"mail: nothing to remove", "POST", "/v1/vms/hello/mail-removals", `{}`, 400, gateway.KindInvalid},
		{"mail: two ways to remove", "POST", "/v1/vms/hello/mail-removals", `{"all":true,"queue_ids":["x"]}`, 400, gateway.KindInvalid},
		{"mail: no moment", "POST", "/v1/vms/hello/mail-removals", `{"before":"yesterday"}`, 400, gateway.KindInvalid},
		{"mail: too many to remove", "POST", "/v1/vms/hello/mail-removals", `{"queue_ids":["` + strings.Repeat(`x","`, 10_000) + `"]}`, 400, gateway.KindInvalid},
		{"mail: of an unknown id", "POST", "/v1/vms/hello/mail-removals", `{"queue_ids":["../x"]}`, 404, gateway.KindNotFound},
		{"mail: no change", "PATCH", "/v1/vms/hello/mail-settings", `{}`, 400, gateway.KindInvalid},
		{"mail: wrong type", "PATCH", "/v1/vms/hello/mail-settings", `{"receive":"on"}`, 400, gateway.KindInvalid},
		{"mail: of the operator", "PATCH", "/v1/vms/postmaster/mail-settings", `{"receive":false}`, 404, gateway.KindNotFound},
		{"mail: a reserved address", "PATCH", "/v1/vms/hello/mail-settings", `{"add_aliases":["abuse@"]}`, 400, gateway.KindInvalid},
		{"mail: no senders", "POST", "/v1/vms/hello/mail-addresses", `{"from":[]}`, 400, gateway.KindInvalid},
		{"mail: endless life", "POST", "/v1/vms/hello/mail-addresses", `{"from":["@shop.example"],"life_seconds":9223372036854775807}`, 400, gateway.KindInvalid},
		{"mail: no address", "DELETE", "/v1/vms/hello/mail-addresses/only-x%40y", "", 404, gateway.KindNotFound},
		{"unknown VM", "POST", "/v1/vms/nobody/start", "", 404, gateway.KindNotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp, e := raw(t, h.Socket, test.method, test.path, test.body)
			if resp.StatusCode != test.status || e.Kind != test.kind || e.Msg == "" {
				t.Errorf("got %d %+v, want %d %s", resp.StatusCode, e, test.status, test.kind)
			}
		})
	}
}

func TestShutdownEndsWhatWouldNotEnd(t *testing.T) {
	h := controltest.Start(t)
	h.Add(t, "hello")
	c := control.NewClient(h.Socket)
	console := must(c.Console(t.Context(), "hello"))(t)
	log := must(c.Log(t.Context(), "hello", true))(t)
	defer log.Close()
	waited := make(chan error, 1)
	waiting := make(chan struct{})
	go func() {
		_, err := c.Wait(t.Context(), "hello", api.HTTP, func(p gateway.Progress) {
			if p.Phase == "http" {
				close(waiting)
			}
		})
		waited <- err
	}()
	<-waiting
	h.Shutdown(t)
	if err := <-waited; gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("wait ended with %v", err)
	}
	_, _ = io.Copy(io.Discard, console) // both have to end, with whatever error
	_, _ = io.Copy(io.Discard, log)
}

// The property: whatever a body holds, the answer is below 500, errors are {kind,error}, and only a valid name makes a VM.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{`{"name":"hello","cpus":2}`, `{"visibility":"public"}`, `{"force":true}`, `{"name":"\u0000"}`, `[]`, `null`, `{"name":"a"}{`, ``} {
		f.Add([]byte(seed))
	}
	h := controltest.Start(f)
	vm := h.Add(f, "fuzzed")
	handler := h.Handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, call := range [][2]string{{"POST", "/v1/vms"}, {"PUT", "/v1/vms/fuzzed/ports/8080"}, {"POST", "/v1/vms/fuzzed/stop"}, {"POST", "/v1/vms/fuzzed/login"}} {
			status, text := controltest.Serve(handler, call[0], call[1], bytes.NewReader(body))
			if status >= 500 {
				t.Fatalf("%s %s: %d %s", call[0], call[1], status, text)
			}
			var e gateway.Error
			if status >= 400 && (json.Unmarshal(text, &e) != nil || e.Kind == "" || e.Msg == "") {
				t.Fatalf("%s %s: %d %q is not an error in JSON", call[0], call[1], status, text)
			}
		}
		for _, m := range h.Directory.All() {
			if m.ID == vm.ID {
				continue
			}
			if err := gateway.CheckName(m.Name); err != nil {
				t.Fatal(err)
			}
			if err := h.Remove(t.Context(), m.ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}
