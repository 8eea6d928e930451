package gateway_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

func TestS3Quotas(t *testing.T) {
	for _, c := range []struct{ set, def, want int64 }{{0, 0, 0}, {0, 5, 5}, {7, 5, 7}, {7, 0, 7}, {gateway.NoS3Quota, 5, 0}} {
		if got := (gateway.S3Settings{QuotaBytes: c.set}).Quota(c.def); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	var s gateway.S3Settings
	for name, bytes := range map[string]int64{"photos": 3, "a": 1, "log": 2} {
		s = s.WithBucketQuota(name, bytes)
	}
	before := s
	s = s.WithBucketQuota("log", 4).WithBucketQuota("a", 0).WithBucketQuota("none", 0)
	if diff := cmp.Diff([]gateway.BucketQuota{{Name: "log", QuotaBytes: 4}, {Name: "photos", QuotaBytes: 3}}, s.Buckets); diff != "" {
		t.Error(diff)
	}
	if before.BucketQuota("log") != 2 || before.BucketQuota("a") != 1 || s.BucketQuota("a") != 0 {
		t.Errorf("%+v, and before %+v", s, before)
	}
}
