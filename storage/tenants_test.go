package storage

import (
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
)

func TestTenants(t *testing.T) {
	all := newTenants()
	a, b := gateway.NewID(), gateway.NewID()
	var leave []func()
	for range maxRequestsPerVM {
		_, l, err := all.enter(t.Context(), a, false)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, _, err := all.enter(t.Context(), a, false); err == nil {
		t.Fatal("a request over the limit was admitted")
	}
	ctx, leaveB, err := all.enter(t.Context(), b, false)
	if err != nil {
		t.Fatalf("another VM was refused: %v", err)
	}
	leave[0]()
	if _, l, err := all.enter(t.Context(), a, false); err != nil {
		t.Fatal(err)
	} else {
		l()
	}
	all.end(b)
	<-ctx.Done() // the VM's requests end with it
	leaveB()
	if _, _, err := all.enter(t.Context(), b, false); err == nil {
		t.Fatal("a removed VM was admitted")
	}
	for _, l := range leave[1:] {
		l()
	}
	if len(all.all) != 1 {
		t.Fatalf("%d VMs are kept, want the removed one only", len(all.all))
	}
}

func TestFewLongListsPerVM(t *testing.T) {
	all := newTenants()
	a, b := gateway.NewID(), gateway.NewID()
	var leave func()
	for range maxLongListsPerVM {
		var err error
		if _, leave, err = all.enter(t.Context(), a, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := all.enter(t.Context(), a, true); err == nil {
		t.Error("a long list over the limit was admitted")
	}
	if _, _, err := all.enter(t.Context(), a, false); err != nil {
		t.Errorf("a plain request was refused: %v", err)
	}
	if _, _, err := all.enter(t.Context(), b, true); err != nil {
		t.Errorf("another VM was refused: %v", err)
	}
	leave()
	if _, _, err := all.enter(t.Context(), a, true); err != nil {
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
