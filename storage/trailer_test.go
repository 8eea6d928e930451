package storage

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/minio-go/v7"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// TestTrailersOfMinioGo: minio-go puts an empty line before the signature of a trailer.
func TestTrailersOfMinioGo(t *testing.T) {
	t.Parallel()
	g := newHost(t).guest("blog")
	keys := g.minted()
	for name, creds := range map[string][2]string{"minted": {keys.AccessKey, keys.SecretKey}, "dummy": {"dummy", "dummy"}} {
		c, err := minio.New(strings.TrimPrefix(g.url, "http://"), &minio.Options{
			Creds: staticCredentials(creds[0], creds[1]), Region: "us-east-1", MaxRetries: 1, TrailingHeaders: true, BucketLookup: minio.BucketLookupPath,
		})
		gatewaytest.Must(t, err)
		for _, size := range []int{0, 5, 200_000, 11 << 20} {
			data := random(size)
			for _, sum := range []minio.ChecksumType{minio.ChecksumNone, minio.ChecksumCRC32C, minio.ChecksumSHA256} {
				opts := minio.PutObjectOptions{PartSize: 5 << 20, Checksum: sum}
				if _, err := c.PutObject(t.Context(), "minio-"+name, "k", bytes.NewReader(data), int64(size), opts); err != nil {
					t.Errorf("%s, %d bytes, %v: %v", name, size, sum, err)
				} else if got := get(t, c, "minio-"+name, "k"); !bytes.Equal(got, data) {
					t.Errorf("%s, %d bytes, %v: other bytes", name, size, sum)
				}
			}
		}
	}
}

// TestTrailersOfGoSDK: over TLS the Go SDK sends its checksum behind the body.
func TestTrailersOfGoSDK(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	var trailers atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Trailer") != "" {
			trailers.Add(1)
		}
		h.Handler().ServeHTTP(w, r.WithContext(gateway.WithVM(r.Context(), g.Identity)))
	}))
	srv.StartTLS()
	t.Cleanup(srv.Close)
	keys := g.minted()
	c := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &srv.URL, UsePathStyle: true, HTTPClient: srv.Client(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: keys.AccessKey, SecretAccessKey: keys.SecretKey}, nil
		}),
	})
	bucket, key := "go-sdk", "k"
	for _, algorithm := range []types.ChecksumAlgorithm{"", types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc64nvme, types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmSha256} {
		data := random(200_000)
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data), ChecksumAlgorithm: algorithm})
		if err != nil {
			t.Errorf("%s: %v", algorithm, err)
		} else if got := get(t, g.dummy(), bucket, key); !bytes.Equal(got, data) {
			t.Errorf("%s: other bytes", algorithm)
		}
	}
	if trailers.Load() != 4 { // all but the one without a checksum
		t.Errorf("the SDK sent %d trailers: the test shows nothing", trailers.Load())
	}
}
