package metadata

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
)

// ownCheckpoints are those of one VM.
type ownCheckpoints struct {
	vm    string
	calls *[]string
}

func (c ownCheckpoints) note(name, what string) error {
	*c.calls = append(*c.calls, c.vm+" of "+name+": "+what)
	switch {
	case strings.HasSuffix(what, "denied"):
		return gateway.Errorf(gateway.KindDenied, "not allowed")
	case strings.HasSuffix(what, "broken"):
		return context.DeadlineExceeded
	}
	return nil
}

func (c ownCheckpoints) Checkpoint(_ context.Context, name string, r gateway.CheckpointRequest) (api.Checkpoint, error) {
	if r.Quiesce {
		r.Name += " frozen"
	}
	return api.Checkpoint{Name: r.Name}, c.note(name, "make "+r.Name)
}

func (c ownCheckpoints) CheckpointList(_ context.Context, name string) ([]api.Checkpoint, error) {
	return []api.Checkpoint{}, c.note(name, "list")
}

func (c ownCheckpoints) RemoveCheckpoint(_ context.Context, name, which string) error {
	return c.note(name, "remove "+which)
}

func (c ownCheckpoints) Rollback(_ context.Context, name, checkpoint string) (api.Checkpoint, error) {
	return api.Checkpoint{Name: "undo"}, c.note(name, "back to "+checkpoint)
}

// A VM reaches the verbs on its own checkpoints; nothing in the request names another VM.
func TestCheckpoints(t *testing.T) {
	h := newHost(t)
	var calls []string
	h.Checkpoints = func(vm gateway.Identity) Checkpoints { return ownCheckpoints{vm.Name, &calls} }
	for _, tt := range []struct {
		method, path, body, header string
		status                     int
		call, text                 string
	}{
		{"GET", "", "", "1", 200, "list", "[]"},
		{"POST", "", `{"name":"a","quiesce":true}`, "1", 201, "make a frozen", `"name":"a frozen"`},
		{"POST", "", "", "1", 201, "make ", ""},
		{"DELETE", "/a", "", "1", 200, "remove a", `"removed":"a"`},
		{"POST", "/a/rollback", "", "1", 202, "back to a", `"name":"undo"`},
		{"POST", "/denied/rollback", "", "1", 403, "back to denied", "--rollback-inside"},
		{"POST", "/broken/rollback", "", "1", 500, "back to broken", "log has the reason"},
		{"POST", "", `{"kind":"asked"}`, "1", 400, "", "unknown field"},
		{"POST", "", strings.Repeat(" ", 5000) + "{}", "1", 400, "", "too large"},
		{"POST", "", "", "0", 403, "", "Lodge-Request"},
		{"DELETE", "/a", "", "0", 403, "", "Lodge-Request"},
		{"PUT", "", "", "1", 405, "", "NAME/rollback"},
		{"DELETE", "", "", "1", 405, "", ""},
		{"GET", "/a", "", "1", 405, "", ""},
		{"POST", "/rollback", "", "1", 405, "", ""},
	} {
		calls = nil
		r := httptest.NewRequestWithContext(gateway.WithVM(t.Context(), h.a.Identity), tt.method, "http://169.254.169.254"+checkpointsPath+tt.path, strings.NewReader(tt.body))
		r.Header.Set("Lodge-Request", tt.header)
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, r)
		want := h.a.Name + " of " + h.a.Name + ": " + tt.call
		if tt.call == "" && tt.status != http.StatusCreated {
			want = ""
		}
		if got := strings.Join(calls, ""); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.text) || got != want {
			t.Errorf("%s %s: %d %s, calls %q", tt.method, tt.path, w.Code, w.Body, got)
		}
	}
}
