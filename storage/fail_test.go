package storage

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/storage/store"
)

// TestRunEndsWhenTheStoreFails breaks the index's log while a request is in progress, which never ends: Run does.
func TestRunEndsWhenTheStoreFails(t *testing.T) {
	vm, dir := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "a"}}, t.TempDir()
	directory := gatewaytest.NewDirectory(t, new(gatewaytest.Records), vm)
	s, err := New(Config{
		Dir: dir, Keyring: gateway.NewKeyring([32]byte{1}, directory), Directory: directory, People: book(t), Logger: slog.New(slog.DiscardHandler),
	})
	gatewaytest.Must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	_, _, err = s.admission.enter(t.Context(), vm.ID, atTap, false)
	gatewaytest.Must(t, err)
	sandboxtest.BreakWrites(t, filepath.Join(dir, "index"), ".log")
	go func() {
		key := store.Key{VM: vm.ID, Bucket: "b", Name: "x"}
		_, _ = s.objects.Put(t.Context(), key, store.Write{Body: strings.NewReader("x"), Size: 1}) // it never ends
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Run returned no error")
		}
	case <-time.After(time.Minute):
		t.Fatal("Run did not end")
	}
}
