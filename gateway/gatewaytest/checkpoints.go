package gatewaytest

import (
	"context"
	"slices"
	"sync"

	"lodge/gateway"
)

// Checkpoints keeps checkpoints in memory, as gateway/store does in its file. The zero value is empty
// and ready; it is safe for concurrent use.
type Checkpoints struct {
	mu  sync.Mutex
	all []gateway.Checkpoint
}

// All implements checkpoint.Records.
func (c *Checkpoints) All(context.Context) ([]gateway.Checkpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all), nil
}

// Create implements checkpoint.Records.
func (c *Checkpoints) Create(_ context.Context, p gateway.Checkpoint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, p)
	return nil
}

// Delete implements checkpoint.Records.
func (c *Checkpoints) Delete(_ context.Context, id gateway.CheckpointID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = slices.DeleteFunc(c.all, func(p gateway.Checkpoint) bool { return p.ID == id })
	return nil
}
