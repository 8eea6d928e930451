package api

import (
	"context"
	"log/slog"
	"slices"

	"lodge/gateway"
)

// BucketGrant is what a VM may do with a bucket of another one.
type BucketGrant struct {
	VM     string               `json:"vm"` // that has the bucket
	Bucket string               `json:"bucket"`
	To     string               `json:"to"`
	Access gateway.BucketAccess `json:"access"`
	Name   string               `json:"name"` // of the bucket, inside the other VM
}

// GrantBucket sets what another VM may do with a bucket: gateway.ReadBucket, gateway.WriteBucket,
// or gateway.NoBucketAccess, which ends what is under way. It answers with the VM's grants.
func (s Session) GrantBucket(ctx context.Context, name, bucket, to string, access gateway.BucketAccess) ([]BucketGrant, error) {
	m, err := s.vm(verbGrantBucket, name)
	if err != nil {
		return nil, err
	}
	if err := checkBucketName(bucket); err != nil {
		return nil, err
	}
	if !slices.Contains([]gateway.BucketAccess{gateway.NoBucketAccess, gateway.ReadBucket, gateway.WriteBucket}, access) {
		return nil, gateway.Invalid("not what a VM may do with a bucket: %.100q", access).WithHint("Choose read, write or none.")
	}
	other, err := s.vm(verbShow, to)
	if err != nil {
		return nil, err
	}
	if other.ID == m.ID {
		return nil, gateway.Invalid("%s has the bucket itself", m.Name).WithHint("Name another VM: --to shop")
	}
	m, err = s.update(ctx, verbGrantBucket, m.ID, func(m *gateway.VM) error {
		m.S3.Grants = slices.DeleteFunc(slices.Clone(m.S3.Grants), func(g gateway.BucketGrant) bool {
			_, there := s.api.Directory.ByID(g.To)
			return !there
		})
		m.S3 = m.S3.WithGrant(gateway.BucketGrant{Bucket: bucket, To: other.ID, Access: access})
		if len(m.S3.Grants) > gateway.MaxBucketGrants {
			return gateway.Errorf(gateway.KindConflict, "%s has %d grants of buckets, which is the limit", m.Name, gateway.MaxBucketGrants).
				WithHint("Remove one: lodge s3 grant %s/BUCKET none --to VM", m.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, gateway.EventBucketGranted, gateway.LogVM(m.Identity), slog.String("bucket", bucket), slog.String("to", other.Name), slog.String("level", string(access)))
	return s.bucketGrants(m), nil
}

// BucketGrants lists the grants of a VM's buckets, and those of other VMs to it.
func (s Session) BucketGrants(_ context.Context, name string) ([]BucketGrant, error) {
	m, err := s.vm(verbBucketGrants, name)
	if err != nil {
		return nil, err
	}
	return s.bucketGrants(m), nil
}

func (s Session) bucketGrants(m gateway.VM) []BucketGrant {
	all := []BucketGrant{} // an empty list is [] in JSON
	for _, owner := range s.api.Directory.All() {
		for _, g := range owner.S3.Grants {
			if other, there := s.api.Directory.ByID(g.To); there && owner.Desired != gateway.Removed && (owner.ID == m.ID || g.To == m.ID) {
				all = append(all, BucketGrant{owner.Name, g.Bucket, other.Name, g.Access, owner.Name + "_" + g.Bucket})
			}
		}
	}
	return all
}
