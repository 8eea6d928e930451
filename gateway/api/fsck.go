package api

import (
	"context"

	"lodge/gateway"
)

// S3Damage is what is damaged of what VMs have stored. An object is refused when it is read, and
// can be replaced or removed.
type S3Damage struct {
	VM     string `json:"vm,omitempty"`     // a UUID for a VM that does not exist any more
	Bucket string `json:"bucket,omitempty"` // without one it is not known
	Key    string `json:"key,omitempty"`
	File   string `json:"file,omitempty"` // below the directory of the objects
	Reason string `json:"reason"`
}

// CheckVMObjects reads all that a VM has stored in S3, and returns what is damaged: at most the
// first 1,000. It can take long. KindConflict: another check is running.
func (s Session) CheckVMObjects(ctx context.Context, name string) ([]S3Damage, error) {
	m, err := s.vm(verbCheckVMObjects, name)
	if err != nil {
		return nil, err
	}
	return s.damage(ctx, m.ID)
}

// CheckObjects is CheckVMObjects for all VMs, and for files that are no VM's.
func (s Session) CheckObjects(ctx context.Context) ([]S3Damage, error) {
	if err := s.allowed(verbCheckObjects); err != nil {
		return nil, err
	}
	return s.damage(ctx, gateway.ID{})
}

func (s Session) damage(ctx context.Context, id gateway.ID) ([]S3Damage, error) {
	found, err := s.api.Objects.Damage(ctx, id)
	if err != nil {
		return nil, err
	}
	all := []S3Damage{} // an empty list is [] in JSON
	for _, d := range found {
		shown := S3Damage{Bucket: d.Bucket, Key: d.Key, File: d.File, Reason: d.Reason}
		if m, ok := s.api.Directory.ByID(d.VM); ok {
			shown.VM = m.Name
		} else if d.VM != (gateway.ID{}) {
			shown.VM = d.VM.String()
		}
		all = append(all, shown)
	}
	return all, nil
}
