package libvirt

import (
	"context"
	"errors"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
)

// Pull begins to copy the content of all layers above base into the layer that the running domain writes
// its root disk to, at most mib MiB a second. It returns at once: see Pulling. Afterwards the chain of the
// domain is that layer, base, and what is below base. If it fails or the domain ends, the chain is the same
// as before.
func (c *Client) Pull(ctx context.Context, id gateway.ID, base string, mib uint64) error {
	return c.call(ctx, "merge the layers of the disk", func(l *rpc.Libvirt) error {
		return l.DomainBlockRebase(domain(id), rootDisk, rpc.OptString{base}, mib, 0)
	})
}

// Pulling reports whether a Pull is in progress.
func (c *Client) Pulling(ctx context.Context, id gateway.ID) (bool, error) {
	var found int32
	err := c.call(ctx, "look at the disk of the VM", func(l *rpc.Libvirt) (err error) {
		found, _, _, _, _, err = l.DomainGetBlockJobInfo(domain(id), rootDisk, 0)
		return err
	})
	return found != 0, err
}

// EndPull ends a Pull, and returns once it has ended. It is no error when it has ended by itself.
func (c *Client) EndPull(ctx context.Context, id gateway.ID) error {
	err := c.call(ctx, "end the merge of the disk", func(l *rpc.Libvirt) error {
		return l.DomainBlockJobAbort(domain(id), rootDisk, 0)
	})
	if code(err) == rpc.ErrOk { // done, or no answer
		return err
	}
	if pulling, failed := c.Pulling(ctx, id); failed != nil || pulling {
		return errors.Join(err, failed)
	}
	return nil
}
