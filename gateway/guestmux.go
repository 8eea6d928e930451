package gateway

import (
	"net"
	"net/http"
	"strings"
)

// GuestMux serves guests by the name in the Host header: S3Host and the names below it are
// storage's, all others metadata's.
func GuestMux(storage, metadata http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := SplitS3Host(r.Host); ok {
			storage.ServeHTTP(w, r)
			return
		}
		metadata.ServeHTTP(w, r)
	})
}

// SplitS3Host reads a Host header, in any case, with or without a port and a final dot. It is true
// for S3Host and the names below it; bucket is the part in front of S3Host, "" for S3Host itself.
// It does not check the bucket.
func SplitS3Host(host string) (bucket string, ok bool) { return SplitHostBelow(host, S3Host) }

// SplitHostBelow is SplitS3Host for another name, in lower case, than S3Host.
func SplitHostBelow(host, base string) (labels string, ok bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == base {
		return "", true
	}
	return strings.CutSuffix(host, "."+base)
}
