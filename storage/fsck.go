package storage

import (
	"context"

	"lodge/gateway"
	"lodge/storage/store"
)

// maxDamage limits the list of what is damaged.
const maxDamage = 1000

// Damage reads all that a VM has stored, or for the zero ID that all VMs have, and returns what is
// damaged: at most the first 1,000. Requests go on meanwhile. KindConflict: another check is
// running.
func (s *Server) Damage(ctx context.Context, id gateway.ID) ([]gateway.S3Damage, error) {
	if !s.checking.TryLock() { // each reads the disk as fast as it can
		return nil, gateway.Errorf(gateway.KindConflict, "a check of the objects is running already").WithHint("Wait for its end.")
	}
	defer s.checking.Unlock()
	found := []gateway.S3Damage{} // an empty list is [] in JSON
	note := func(d store.Damage) {
		if len(found) < maxDamage {
			found = append(found, gateway.S3Damage{VM: d.VM, Bucket: d.Bucket, Key: d.Name, File: d.Blob, Reason: d.Err.Error()})
		}
	}
	if id == (gateway.ID{}) {
		return found, s.objects.Check(ctx, note)
	}
	return found, s.objects.CheckVM(ctx, id, note)
}
