package engine

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A crash before the first write to a bucket has succeeded leaves no bucket, and one after it does.
func TestStagedBucketsEndWithACrash(t *testing.T) {
	e, vm := serve(t), gateway.Identity{ID: gateway.NewID()}
	makeBucket(t, e, vm)
	_, err := e.BeginWrite(vm, "staged") // and the crash
	gatewaytest.Must(t, err)
	_, err = e.BeginWrite(vm, "written")
	gatewaytest.Must(t, err)
	if status, err := do(t.Context(), e, vm, http.MethodPut, "/written/k"); err != nil || status != http.StatusOK {
		t.Fatalf("write: %d, %v", status, err)
	}
	staged := e.backend.bucketPath(vm.ID, "staged")
	if _, err := os.Lstat(staged); err != nil {
		t.Fatalf("nothing is staged, so the test shows nothing: %v", err)
	}
	again, err := newBackend(e.backend.dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, again.recover())
	if _, err := os.Lstat(staged); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the staged bucket is there: %v", err)
	}
	for _, path := range []string{"/box", "/written", "/written/k"} {
		if status, err := do(t.Context(), e, vm, http.MethodHead, path); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d, %v", path, status, err)
		}
	}
}

// The last write to end removes what is staged, and no earlier one.
func TestLastFailedWriteUnstages(t *testing.T) {
	e, vm := serve(t), gateway.Identity{ID: gateway.NewID()}
	first, err := e.BeginWrite(vm, "box")
	gatewaytest.Must(t, err)
	second, err := e.BeginWrite(vm, "box")
	gatewaytest.Must(t, err)
	path := e.backend.bucketPath(vm.ID, "box")
	first()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("after the first: %v", err)
	}
	second()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the second: %v", err)
	}
	if len(e.backend.staging.writes) != 0 {
		t.Errorf("writes are left: %v", e.backend.staging.writes)
	}
}
