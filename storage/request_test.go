package storage

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"lodge/storage/sigv4"
)

type reply struct {
	status int
	body   string
	header http.Header
}

// do sends a hand-made request, signed with a dummy key.
func (g guest) do(tb testing.TB, method, path string, header map[string]string) reply {
	tb.Helper()
	return g.send(tb, method, path, "", "", header)
}

func (g guest) doHost(tb testing.TB, method, path, host string) reply {
	tb.Helper()
	return g.send(tb, method, path, host, "", nil)
}

func (g guest) doBody(tb testing.TB, method, path, body string) reply {
	tb.Helper()
	return g.send(tb, method, path, "", body, nil)
}

func (g guest) doType(tb testing.TB, method, path, contentType, body string) reply {
	tb.Helper()
	return g.send(tb, method, path, "", body, map[string]string{"Content-Type": contentType})
}

func (g guest) send(tb testing.TB, method, path, host, body string, header map[string]string) reply {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, g.url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	raw, query, _ := strings.Cut(path, "?")
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = raw, raw, query
	if plain, err := url.PathUnescape(raw); err == nil {
		r.URL.Path = plain
	}
	if host != "" {
		r.Host = host
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	if r.Header.Get("Authorization") == "" {
		r.Header.Set("X-Amz-Content-Sha256", firstOf(header["X-Amz-Content-Sha256"], sigv4.Unsigned))
		if err := sigv4.Sign(r, "dummy", "dummy", "us-east-1", time.Now()); err != nil {
			tb.Fatal(err)
		}
	}
	return answer(tb, r)
}

func answer(tb testing.TB, r *http.Request) reply {
	tb.Helper()
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		tb.Fatal(err)
	}
	return readReply(tb, res)
}

func readReply(tb testing.TB, res *http.Response) reply {
	tb.Helper()
	defer func() { _ = res.Body.Close() }() // read to its end
	text, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{res.StatusCode, string(text), res.Header}
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func minioCore(g guest) minio.Core { return minio.Core{Client: g.keyed()} }

func putOptions() minio.PutObjectOptions { return minio.PutObjectOptions{} }

func partOptions() minio.PutObjectPartOptions { return minio.PutObjectPartOptions{} }
