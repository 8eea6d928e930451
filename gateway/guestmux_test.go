package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"lodge/gateway"
)

func TestGuestMux(t *testing.T) {
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	mux := gateway.GuestMux(named("storage"), named("metadata"))
	for _, tt := range []struct{ host, service, bucket string }{
		{"s3.lodge.internal", "storage", ""},
		{"S3.Lodge.Internal:80", "storage", ""},
		{"s3.lodge.internal.", "storage", ""},
		{"s3.lodge.internal.:443", "storage", ""},
		{"photos.s3.lodge.internal", "storage", "photos"},
		{"my.photos.s3.lodge.internal:80", "storage", "my.photos"},
		{"photos.s3.lodge.internal..", "metadata", ""},
		{"s3.lodge.internal.example.org", "metadata", ""},
		{"xs3.lodge.internal", "metadata", ""},
		{"lodge.internal", "metadata", ""},
		{"metadata.lodge.internal", "metadata", ""},
		{"169.254.169.254", "metadata", ""},
		{"[::1]:80", "metadata", ""},
		{"", "metadata", ""},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host = tt.host
		mux.ServeHTTP(w, r)
		bucket, ok := gateway.SplitS3Host(tt.host)
		if got := w.Body.String(); got != tt.service || ok != (tt.service == "storage") || ok && bucket != tt.bucket {
			t.Errorf("%q: %s, bucket %q; want %s, %q", tt.host, got, bucket, tt.service, tt.bucket)
		}
	}
}
