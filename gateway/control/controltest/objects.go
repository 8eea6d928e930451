package controltest

import (
	"context"

	"lodge/gateway"
	"lodge/gateway/api"
)

// UseObjects makes objects what the VMs have in S3. Before it, they have none.
func (h *Host) UseObjects(objects api.Objects) { h.objects.Store(&objects) }

// lateObjects are those of UseObjects.
type lateObjects struct{ h *Host }

// Usage implements api.Objects.
func (l lateObjects) Usage(ctx context.Context, id gateway.ID) (gateway.S3Usage, map[string]gateway.S3Usage, error) {
	if set := l.h.objects.Load(); set != nil {
		return (*set).Usage(ctx, id)
	}
	return gateway.S3Usage{}, nil, nil
}

// Damage implements api.Objects.
func (l lateObjects) Damage(ctx context.Context, id gateway.ID) ([]gateway.S3Damage, error) {
	if objects := l.h.objects.Load(); objects != nil {
		return (*objects).Damage(ctx, id)
	}
	return nil, nil
}

// UsageBelow implements api.Objects.
func (l lateObjects) UsageBelow(ctx context.Context, id gateway.ID, bucket, prefix string) (gateway.S3Usage, error) {
	if set := l.h.objects.Load(); set != nil {
		return (*set).UsageBelow(ctx, id, bucket, prefix)
	}
	return gateway.S3Usage{}, gateway.Errorf(gateway.KindNotFound, "no bucket %q", bucket)
}
