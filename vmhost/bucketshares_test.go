package vmhost

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A rollback shares the buckets as they were, since it brings back what was in them; one from
// inside the VM shares them as they are now. What other VMs are granted stays.
func TestRollbackOfBucketShares(t *testing.T) {
	public := func(bucket string) []gateway.BucketShare {
		return []gateway.BucketShare{{Bucket: bucket, Share: gateway.Share{Visibility: gateway.Public}}}
	}
	for name, c := range map[string]struct {
		inside bool
		want   []gateway.BucketShare
	}{"by its owner": {false, public("then")}, "from inside": {true, public("now")}} {
		t.Run(name, func(t *testing.T) {
			r := newUndoRig(t)
			grants := []gateway.BucketGrant{{Bucket: "now", To: gateway.NewID(), Access: gateway.ReadBucket}}
			set := func(s gateway.S3Settings) {
				_, err := r.h.dir.Update(t.Context(), r.blog.ID, func(m *gateway.VM) error {
					m.S3 = s
					return nil
				})
				gatewaytest.Must(t, err)
			}
			set(gateway.S3Settings{Shares: public("then")})
			_, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "first", Kind: gateway.CheckpointAsked})
			gatewaytest.Must(t, err)
			set(gateway.S3Settings{Shares: public("now"), Grants: grants})
			rev := r.vm(t).ShareRev
			gatewaytest.Must(t, r.rollback(t, "first", c.inside))
			if diff := cmp.Diff(gateway.S3Settings{Shares: c.want, Grants: grants}, r.vm(t).S3); diff != "" || r.vm(t).ShareRev == rev {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
