package api

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"lodge/gateway"
)

// DefaultS3KeyLife is how long S3 credentials for outside live unless a request sets it.
const DefaultS3KeyLife = time.Hour

// S3Key are S3 credentials for a VM's objects from outside. They are shown once.
type S3Key struct {
	AccessKey string    `json:"access_key"`
	SecretKey string    `json:"secret_key"`
	Expires   time.Time `json:"expires"`
	Endpoint  string    `json:"endpoint"` // the URL of the S3 service
	Region    string    `json:"region"`
}

// NewS3Key makes S3 credentials for outside, of a minute to 7 days; 0 is DefaultS3KeyLife. They end with the VM, when
// they are revoked, and when the caller may no longer use the VM.
func (s Session) NewS3Key(ctx context.Context, name string, life time.Duration) (S3Key, error) {
	m, err := s.vm(verbNewS3Key, name)
	if err != nil {
		return S3Key{}, err
	}
	if life = cmp.Or(life, DefaultS3KeyLife); life < gateway.MinS3KeyLife || life > gateway.MaxS3KeyLife {
		return S3Key{}, gateway.Invalid("credentials cannot be valid for %s", life).WithHint("They are valid for 1m to 7d, such as 12h.")
	}
	c, err := s.api.Keyring.IssueOutside(m.ID, s.person().ID, life, time.Now())
	if err != nil {
		return S3Key{}, err
	}
	s.audit(ctx, gateway.EventS3KeyMade, gateway.LogVM(m.Identity), slog.Time("until", c.Expires))
	return S3Key{AccessKey: c.AccessKey, SecretKey: c.SecretKey, Expires: c.Expires, Endpoint: s.api.S3URL, Region: gateway.S3Region}, nil
}

// RevokeS3Keys ends all S3 credentials of a VM for outside, and the presigned URLs made with them.
func (s Session) RevokeS3Keys(ctx context.Context, name string) error {
	m, err := s.vm(verbRevokeS3Keys, name)
	if err != nil {
		return err
	}
	m, err = s.update(ctx, verbRevokeS3Keys, m.ID, func(m *gateway.VM) error {
		m.S3.KeyEpoch++
		return nil
	})
	if err == nil {
		s.audit(ctx, gateway.EventS3KeysRevoked, gateway.LogVM(m.Identity))
	}
	return err
}
