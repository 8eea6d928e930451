package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
)

// objects has stored 5 bytes in the bucket photos of each VM.
type objects struct{}

func (objects) Usage(context.Context, gateway.ID) (gateway.S3Usage, map[string]gateway.S3Usage, error) {
	u := gateway.S3Usage{Bytes: 5, Objects: 1}
	return u, map[string]gateway.S3Usage{"photos": u}, nil
}

func (objects) UsageBelow(context.Context, gateway.ID, string, string) (gateway.S3Usage, error) {
	return gateway.S3Usage{Bytes: 5, Objects: 1}, nil
}

func (objects) Damage(context.Context, gateway.ID) ([]gateway.S3Damage, error) { return nil, nil }

func TestS3Quotas(t *testing.T) {
	a, log := mailAPI(t)
	a.Objects, a.S3Quota = objects{}, 1<<30
	ada, revoke := manager(t, a)
	owner := a.As(api.Owner())
	type quota struct {
		bucket string
		bytes  int64
	}
	for name, c := range map[string]struct {
		quota quota
		kind  gateway.Kind
	}{
		"the VM as a whole": {quota{"", gateway.NoS3Quota}, gateway.KindDenied},
		"too small":         {quota{"photos", 5}, gateway.KindInvalid},
		"below zero":        {quota{"photos", -2}, gateway.KindInvalid},
		"too large":         {quota{"photos", gateway.MaxS3Quota + 1}, gateway.KindInvalid},
	} {
		if _, err := ada.SetS3Quota(t.Context(), "blog", c.quota.bucket, c.quota.bytes); gateway.KindOf(err) != c.kind || api.ErrorOf(err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	u, err := ada.SetS3Quota(t.Context(), "blog", "photos", 2<<20)
	gatewaytest.Must(t, err)
	if u.QuotaBytes != 1<<30 || u.Bytes != 5 || len(u.Buckets) != 1 || u.Buckets[0].QuotaBytes != 2<<20 || u.Buckets[0].Bytes != 5 {
		t.Errorf("%+v", u)
	}
	for _, bytes := range []int64{3 << 20, gateway.NoS3Quota, 0} {
		u, err = owner.SetS3Quota(t.Context(), "blog", "", bytes)
		m, _ := a.Directory.ByName("blog")
		if err != nil || m.S3.QuotaBytes != bytes || u.QuotaBytes != m.S3.Quota(1<<30) {
			t.Errorf("%d: %+v %v", bytes, u, err)
		}
	}
	u, err = owner.SetS3Quota(t.Context(), "blog", "later", 1<<20)
	if err != nil || len(u.Buckets) != 2 || u.Buckets[0].Name != "later" || u.Buckets[0].Objects != 0 {
		t.Errorf("a bucket that is not there yet: %+v %v", u, err)
	}
	if log.Count("event=s3.quota.set") != 5 {
		t.Errorf("log: %s", log)
	}
	revoke()
	if _, err := ada.SetS3Quota(t.Context(), "blog", "photos", 0); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("with the right taken back: %v", err)
	}
}

// Who may use a VM makes keys for outside, which are theirs; who may manage it ends all of them.
func TestS3Keys(t *testing.T) {
	a, log := mailAPI(t)
	a.S3URL = "https://s3.lodge.localhost"
	ada, _ := manager(t, a)
	who, _ := a.People.ByMail("ada@example.com")
	for life, want := range map[time.Duration]time.Duration{0: api.DefaultS3KeyLife, time.Minute: time.Minute, gateway.MaxS3KeyLife: gateway.MaxS3KeyLife} {
		before := time.Now().Add(want - time.Second)
		made, err := ada.NewS3Key(t.Context(), "blog", life)
		if err != nil || made.Expires.Before(before) || made.Expires.After(time.Now().Add(want)) || made.Endpoint != a.S3URL {
			t.Errorf("%s: %+v %v", life, made, err)
		}
		key, err := a.Keyring.Check(made.AccessKey, time.Now())
		if err != nil || key.By != who.ID || !key.Outside || key.Secret != made.SecretKey || strings.Contains(log.String(), made.SecretKey) {
			t.Errorf("%s: %v", life, err)
		}
	}
	for _, life := range []time.Duration{time.Second, -time.Hour, gateway.MaxS3KeyLife + time.Second} {
		if _, err := ada.NewS3Key(t.Context(), "blog", life); gateway.KindOf(err) != gateway.KindInvalid || api.ErrorOf(err).Hint == "" {
			t.Errorf("%s: %v", life, err)
		}
	}
	made, err := ada.NewS3Key(t.Context(), "blog", 0)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, ada.RevokeS3Keys(t.Context(), "blog"))
	if _, err := a.Keyring.Check(made.AccessKey, time.Now()); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("revoked: %v", err)
	}
	if log.Count("event=s3.key.made") != 4 || log.Count("event=s3.keys.revoked") != 1 {
		t.Errorf("log: %s", log)
	}
}
