package https

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/quota"
)

// The crowd at one VM's bucket leaves the other VMs their buckets, and the host its other services.
func TestOneVMsBucketLeavesRoomForOthers(t *testing.T) {
	vms := gatewaytest.NewDirectory(t, new(gatewaytest.Records), publicVM("blog"), publicVM("shop"))
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s, err := New(withPeople(t, Config{
		Domain: "lodge.localhost", Port: 443, Dir: t.TempDir(), Directory: vms, Logger: slog.New(slog.DiscardHandler),
		Services: map[string]http.Handler{"s3.lodge.localhost": served},
	}))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) // it serves nothing
	blog, _ := vms.ByName("blog")
	for _, full := range []struct {
		of   gateway.ID
		want map[string]int
	}{
		{blog.ID, map[string]int{"photos.blog.s3": 503, "photos.shop.s3": 204, "s3": 204, "photos.none.s3": 204}},
		{gateway.ID{}, map[string]int{"photos.blog.s3": 503, "photos.shop.s3": 204, "s3": 503, "photos.none.s3": 503}},
	} {
		for over := quota.None; over != quota.OfVM; {
			_, over = s.quota.Enter(full.of, quota.Visitor{Person: rand.Text()})
		}
		for name, status := range full.want {
			w := httptest.NewRecorder()
			s.serveWeb(w, request(t, http.MethodGet, name, nil))
			if w.Code != status {
				t.Errorf("%s at its limit: %s answers %d", full.of, name, w.Code)
			}
		}
	}
}
