package engine

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/sigv4"
)

// serve runs an engine until the test ends.
func serve(t *testing.T) *Engine {
	t.Helper()
	e, err := New(t.TempDir(), slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		gatewaytest.Must(t, <-ended)
	})
	return e
}

func makeBucket(t *testing.T, e *Engine, vm gateway.Identity) {
	t.Helper()
	status, err := do(t.Context(), e, vm, http.MethodPut, "/box")
	gatewaytest.Must(t, err)
	if status != http.StatusOK {
		t.Fatalf("make the bucket: %d", status)
	}
}

func do(ctx context.Context, e *Engine, vm gateway.Identity, method, path string) (int, error) {
	r := (&http.Request{Method: method, URL: &url.URL{Path: path}, Header: http.Header{}, Body: http.NoBody}).WithContext(ctx)
	r.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	res, err := e.Do(r, vm)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// A client that leaves does not end the engine's work for it. Do returns after that work, so that
// the VM's files are not removed beneath it.
func TestDoOutlastsItsClient(t *testing.T) {
	e, vm := serve(t), gateway.Identity{ID: gateway.NewID()}
	makeBucket(t, e, vm)
	object := e.backend.bucketPath(vm.ID, "box") + "/k"
	lock := e.backend.keys.of(object)
	lock.Lock() // the engine's work waits for it
	release := sync.OnceFunc(lock.Unlock)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	go func() {
		_, err := do(ctx, e, vm, http.MethodPut, "/box/k")
		returned <- err
	}()
	bucket := e.backend.buckets.of(e.backend.bucketPath(vm.ID, "box"))
	gatewaytest.WaitFor(t, "the engine publishes the object", func() bool {
		free := bucket.TryLock()
		if free {
			bucket.Unlock()
		}
		return !free
	})
	cancel()
	for range 20 { // more than enough for a Do that does not wait
		if status, err := do(t.Context(), e, vm, http.MethodHead, "/box"); err != nil || status != http.StatusOK {
			t.Fatalf("another request: %d, %v", status, err)
		}
	}
	select {
	case err := <-returned:
		t.Fatalf("Do has returned while the engine was at work: %v", err)
	default:
	}
	release()
	if err := <-returned; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("Do: %v", err)
	}
	if len(e.calls.open) != 0 {
		t.Errorf("calls are left: %v", e.calls.open)
	}
}

// A request that Do has given up, or has not sent, is not carried out.
func TestOnlyCallsOfDoAreServed(t *testing.T) {
	e, vm := serve(t), gateway.Identity{ID: gateway.NewID()}
	makeBucket(t, e, vm)
	number, end := e.calls.add()
	end()
	if _, ok := e.calls.handle(number); ok {
		t.Error("a handler began after the end of its call")
	}
	for range 2 { // the server is ready after the first
		_, err := do(t.Context(), e, vm, http.MethodHead, "/box")
		gatewaytest.Must(t, err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://engine/box", nil)
	gatewaytest.Must(t, err)
	r.Header.Set(callHeader, number)
	res, err := e.transport.RoundTrip(r)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, res.Body.Close())
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the engine answered %d", res.StatusCode)
	}
}
