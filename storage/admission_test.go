package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/sigv4"
)

func newVMs(t *testing.T) (all *admission, directory *gateway.Directory, a, b gateway.ID) {
	t.Helper()
	a, b = gateway.NewID(), gateway.NewID()
	directory = gatewaytest.NewDirectory(t, new(gatewaytest.Records),
		gateway.VM{Identity: gateway.Identity{ID: a, Name: "a"}}, gateway.VM{Identity: gateway.Identity{ID: b, Name: "b"}})
	return newAdmission(directory), directory, a, b
}

func TestAdmission(t *testing.T) {
	all, _, a, b := newVMs(t)
	var leave []func()
	for range maxRequestsPerVM {
		_, l, err := all.enter(t.Context(), a, atTap, false)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, _, err := all.enter(t.Context(), a, atTap, false); err == nil {
		t.Fatal("a request over the limit was admitted")
	}
	_, leaveB, err := all.enter(t.Context(), b, atTap, false)
	if err != nil {
		t.Fatalf("another VM was refused: %v", err)
	}
	leave[0]()
	if _, l, err := all.enter(t.Context(), a, atTap, false); err != nil {
		t.Fatal(err)
	} else {
		l()
	}
	leaveB()
	for _, l := range leave[1:] {
		l()
	}
	if len(all.all) != 0 {
		t.Fatalf("%d VMs are kept", len(all.all))
	}
}

// A removed VM's requests end, further ones are refused, and end waits for those in progress.
func TestEndOfAVM(t *testing.T) {
	all, directory, a, b := newVMs(t)
	ctx, leave, err := all.enter(t.Context(), a, atTap, false)
	gatewaytest.Must(t, err)
	_, leaveB, err := all.enter(t.Context(), b, atTap, false)
	gatewaytest.Must(t, err)
	defer leaveB()
	_, err = directory.Update(t.Context(), a, func(m *gateway.VM) error {
		m.Desired = gateway.Removed
		return nil
	})
	gatewaytest.Must(t, err)
	if _, _, err := all.enter(t.Context(), a, atTap, false); err == nil {
		t.Error("a VM that is being removed was admitted")
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := all.end(impatient, a); !errors.Is(err, context.Canceled) {
		t.Errorf("end with a request in progress: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- all.end(t.Context(), a) }()
	<-ctx.Done() // the VM's requests end with it
	select {
	case <-ended:
		t.Fatal("end has returned with a request in progress")
	default:
	}
	leave()
	gatewaytest.Must(t, <-ended)
	gatewaytest.Must(t, all.end(t.Context(), a)) // repeated
	gatewaytest.Must(t, directory.Delete(t.Context(), a))
	if _, _, err := all.enter(t.Context(), a, atTap, false); err == nil {
		t.Error("a VM that is gone was admitted")
	}
}

func TestFewLongListsPerVM(t *testing.T) {
	all, _, a, b := newVMs(t)
	var leave func()
	for range maxLongListsPerVM {
		var err error
		if _, leave, err = all.enter(t.Context(), a, atTap, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := all.enter(t.Context(), a, atTap, true); err == nil {
		t.Error("a long list over the limit was admitted")
	}
	if _, _, err := all.enter(t.Context(), a, atTap, false); err != nil {
		t.Errorf("a plain request was refused: %v", err)
	}
	if _, _, err := all.enter(t.Context(), b, atTap, true); err != nil {
		t.Errorf("another VM was refused: %v", err)
	}
	leave()
	if _, _, err := all.enter(t.Context(), a, atTap, true); err != nil {
		t.Errorf("after another ended: %v", err)
	}
}

func TestLongLists(t *testing.T) {
	g := newHost(t).guest("a")
	g.do(t, http.MethodPut, "/bucket/key", nil)
	remove := func(n int) string {
		return "<Delete>" + strings.Repeat("<Object><Key>x</Key></Object>", n) + "</Delete>"
	}
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
	}{
		"as many keys as AWS takes": {http.MethodPost, "/bucket?delete", remove(1000), http.StatusOK},
		"one more":                  {http.MethodPost, "/bucket?delete", remove(1001), http.StatusBadRequest},
		"long tags":                 {http.MethodPut, "/bucket/key?tagging", strings.Repeat(" ", longList+1), http.StatusBadRequest},
	} {
		if got := g.send(t, tt.method, tt.path, "", tt.body, map[string]string{"Content-Md5": base64MD5(tt.body)}); got.status != tt.status {
			t.Errorf("%s: %d %.200s", name, got.status, got.body)
		}
	}
}

// A list that is sent in chunks counts as long: what it announces can be anything.
func TestChunkedListsAreLong(t *testing.T) {
	g := newHost(t).guest("a")
	g.do(t, http.MethodPut, "/bucket/key", nil)
	remove := func() int {
		t.Helper()
		text := "<Delete><Object><Key>x</Key></Object></Delete>"
		body := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/bucket?delete", io.MultiReader(strings.NewReader(body)))
		gatewaytest.Must(t, err)
		r.Header.Set("X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
		r.Header.Set("X-Amz-Decoded-Content-Length", strconv.Itoa(len(text)))
		gatewaytest.Must(t, sigv4.Sign(r, "dummy", "dummy", "us-east-1", time.Now()))
		return answer(t, r).status
	}
	if status := remove(); status != http.StatusOK {
		t.Errorf("alone: %d", status)
	}
	for range maxLongListsPerVM {
		_, leave, err := g.host.admission.enter(t.Context(), g.ID, atTap, true)
		gatewaytest.Must(t, err)
		defer leave()
	}
	if status := remove(); status != http.StatusServiceUnavailable {
		t.Errorf("beside as many long lists as there may be: %d", status)
	}
}
