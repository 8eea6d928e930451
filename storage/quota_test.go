package storage

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// setS3 changes the settings of the guest's S3.
func (g guest) setS3(t *testing.T, change func(s *gateway.S3Settings)) {
	t.Helper()
	_, err := g.host.directory.Update(t.Context(), g.ID, func(m *gateway.VM) error {
		change(&m.S3)
		return nil
	})
	gatewaytest.Must(t, err)
}

// A quota holds from the moment it is set, for the VM and for the bucket, in the middle of a multipart
// upload too; it concerns no other VM, and what is stored stays.
func TestQuota(t *testing.T) {
	h := newHost(t)
	g, other := h.guest("blog"), h.guest("shop")
	c := minio.Core{Client: g.dummy()}
	write := func(bucket, key string, size int) error {
		_, err := c.Client.PutObject(t.Context(), bucket, key, bytes.NewReader(random(size)), int64(size), minio.PutObjectOptions{DisableMultipart: true})
		return err
	}
	gatewaytest.Must(t, write("photos", "a", 6<<20))
	upload, err := c.NewMultipartUpload(t.Context(), "photos", "big", minio.PutObjectOptions{})
	gatewaytest.Must(t, err)
	part := func(number int) (minio.ObjectPart, error) {
		return c.PutObjectPart(t.Context(), "photos", "big", upload, number, bytes.NewReader(random(5<<20)), 5<<20, minio.PutObjectPartOptions{})
	}
	first, err := part(1)
	gatewaytest.Must(t, err)

	g.setS3(t, func(s *gateway.S3Settings) { s.QuotaBytes = 15 << 20 })
	_, err = part(2)
	wantCode(t, err, "QuotaExceeded", 507)
	if text := minio.ToErrorResponse(err).Message; !strings.Contains(text, "may store 15 MiB, has 11 MiB, and this write adds 5.0 MiB") {
		t.Errorf("without the figures: %s", text)
	}
	wantCode(t, write("log", "a", 5<<20), "QuotaExceeded", 507)
	gatewaytest.Must(t, write("log", "a", 1<<20))
	put(t, other.dummy(), "photos", "a", random(16<<20))

	g.setS3(t, func(s *gateway.S3Settings) {
		s.QuotaBytes = 0
		*s = s.WithBucketQuota("photos", 12<<20+8<<10) // 1 KiB for each object
	})
	_, err = part(2)
	wantCode(t, err, "QuotaExceeded", 507)
	if text := minio.ToErrorResponse(err).Message; !strings.Contains(text, "bucket photos may store 12 MiB") {
		t.Errorf("without the bucket: %s", text)
	}
	gatewaytest.Must(t, write("log", "b", 16<<20))
	gatewaytest.Must(t, write("photos", "small", 1<<20))
	if _, err := c.CompleteMultipartUpload(t.Context(), "photos", "big", upload, []minio.CompletePart{{PartNumber: 1, ETag: first.ETag}}, minio.PutObjectOptions{}); err != nil {
		t.Errorf("an upload of parts that are stored: %v", err)
	}
	wantCode(t, write("photos", "more", 1<<20), "QuotaExceeded", 507)
	gatewaytest.Must(t, c.RemoveObject(t.Context(), "photos", "big", minio.RemoveObjectOptions{}))
	gatewaytest.Must(t, write("photos", "more", 1<<20))
}

// A VM without a quota of its own has the host's.
func TestDefaultQuota(t *testing.T) {
	h := newHostWith(t, func(c *Config) { c.Quota = 1 << 20 })
	g := h.guest("blog")
	_, err := g.dummy().PutObject(t.Context(), "box", "k", bytes.NewReader(random(2<<20)), 2<<20, minio.PutObjectOptions{})
	wantCode(t, err, "QuotaExceeded", 507)
	for _, bytes := range []int64{gateway.NoS3Quota, 3 << 20} {
		g.setS3(t, func(s *gateway.S3Settings) { s.QuotaBytes = bytes })
		put(t, g.dummy(), "box", "k", random(2<<20))
		gatewaytest.Must(t, g.dummy().RemoveObject(t.Context(), "box", "k", minio.RemoveObjectOptions{}))
	}
}

func TestUsage(t *testing.T) {
	h := newHost(t)
	g, other := h.guest("blog"), h.guest("shop")
	for key, size := range map[string]int{"2024/a": 10, "2024/b": 20, "2025/a": 40} {
		put(t, g.dummy(), "photos", key, random(size))
	}
	put(t, g.dummy(), "log", "x", random(3))
	all, buckets, err := h.Usage(t.Context(), g.ID)
	if want := (gateway.S3Usage{Bytes: 73, Objects: 4, RecordBytes: 4 << 10}); err != nil || !cmp.Equal(all, want) || len(buckets) != 2 || buckets["photos"].Bytes != 70 {
		t.Errorf("%+v %+v %v", all, buckets, err)
	}
	if u, err := h.UsageBelow(t.Context(), g.ID, "photos", "2024/"); err != nil || u.Bytes != 30 || u.Objects != 2 {
		t.Errorf("below a prefix: %+v %v", u, err)
	}
	if _, err := h.UsageBelow(t.Context(), other.ID, "photos", ""); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("another VM's bucket: %v", err)
	}
}

// TestScansAreBounded starts a scan while as many as may be are under way: it waits for one of them, as long as its caller
// does.
func TestScansAreBounded(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	put(t, g.dummy(), "photos", "a", random(10))
	for range maxScans {
		h.scans <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.UsageBelow(ctx, g.ID, "photos", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("one too many: %v", err)
	}
	<-h.scans
	if u, err := h.UsageBelow(t.Context(), g.ID, "photos", ""); err != nil || u.Objects != 1 {
		t.Errorf("%+v %v", u, err)
	}
}
