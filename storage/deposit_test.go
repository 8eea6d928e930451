package storage

import (
	"bytes"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/sse"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// An object that the host deposits is the VM's, once: as its own program would have put it, with the bucket's default
// encryption, and within its quota and policy. A VM that is off gets it too; one that is removed does not.
func TestDeposit(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	c := g.dummy()
	deposit := func(bucket, name, text string) error {
		return h.Deposit(t.Context(), g.Identity, bucket, name, "message/rfc822", strings.NewReader(text), int64(len(text)))
	}
	_, err := h.directory.Update(t.Context(), g.ID, func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil })
	gatewaytest.Must(t, err)
	for range 2 { // the second one changes nothing
		gatewaytest.Must(t, deposit("mail", "in/1 ü.eml", "Subject: x\r\n\r\nhello\r\n"))
	}
	gatewaytest.Must(t, deposit("mail", "in/1 ü.eml", "other"))
	if got := string(get(t, c, "mail", "in/1 ü.eml")); got != "Subject: x\r\n\r\nhello\r\n" {
		t.Errorf("stored: %q", got)
	}
	info, err := c.StatObject(t.Context(), "mail", "in/1 ü.eml", minio.StatObjectOptions{})
	if err != nil || info.ContentType != "message/rfc822" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := h.Deposit(t.Context(), g.Identity, "mail", "short", "x/y", strings.NewReader("ab"), 3); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("a body that is too short: %v", err)
	}

	gatewaytest.Must(t, c.SetBucketEncryption(t.Context(), "mail", sse.NewConfigurationSSES3()))
	gatewaytest.Must(t, deposit("mail", "sealed", "secret text"))
	info, err = c.StatObject(t.Context(), "mail", "sealed", minio.StatObjectOptions{})
	if got := get(t, c, "mail", "sealed"); err != nil || info.Metadata.Get("x-amz-server-side-encryption") != "AES256" || !bytes.Equal(got, []byte("secret text")) {
		t.Errorf("%+v, %v, %q", info.Metadata, err, got)
	}

	g.setS3(t, func(s *gateway.S3Settings) { s.QuotaBytes = 100 })
	if err := deposit("mail", "large", strings.Repeat("x", 200)); gateway.KindOf(err) != gateway.KindNoSpace {
		t.Errorf("above the quota: %v", err)
	}
	gatewaytest.Must(t, c.SetBucketPolicy(t.Context(), "mail", policyOf(`{"Effect":"Deny","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::mail/*"}`)))
	if err := deposit("mail", "denied", "x"); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("against the policy: %v", err)
	}
	_, err = h.directory.Update(t.Context(), g.ID, func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil })
	gatewaytest.Must(t, err)
	if err := deposit("mail", "late", "x"); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("for a VM that is removed: %v", err)
	}
}
