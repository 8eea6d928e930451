package libvirt

import (
	"context"
	"errors"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
)

// Pull begins to copy what the layers of the running domain's root disk above base have into the one
// that it writes to, at most mib MiB a second. It returns at once: see Pulling. In the end the domain
// uses that one and what is from base downwards. If it fails or the domain ends, the layers are as
// they were, and more is in the uppermost.
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
