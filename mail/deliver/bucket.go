package deliver

import (
	"context"
	"errors"
	"io"

	"lodge/gateway"
)

// Objects keeps objects in buckets of VMs; storage.Server is one.
type Objects interface {
	// Deposit stores an object of a VM, unless there is one of that name, and returns once it is synced. A missing
	// bucket is made. Body has that many bytes. Errors: KindNoSpace over a quota or a full disk, KindDenied where the
	// bucket's policy denies it, KindUnavailable for what passes by itself.
	Deposit(ctx context.Context, vm gateway.Identity, bucket, name, contentType string, body io.Reader, bytes int64) error
}

// bucketWidth is how many objects are stored at once, which share syncs.
const bucketWidth = 4

// bucketRoute is a Route into a bucket of the VM: a message is an object, message/rfc822, byte for byte as the host has
// it, with the queue id in its name. A name is written once, so a message that comes again makes no second object
// while the first is there. The VM may be off. All errors wait: there is nothing that a bucket refuses for good.
type bucketRoute struct {
	objects Objects
	vm      gateway.Identity
	to      gateway.MailRoute
}

func openBucket(config Config, m gateway.VM, to gateway.MailRoute) (Route, error) {
	if config.Objects == nil {
		return nil, at(stageConnect, errors.New("this host keeps no objects"))
	}
	return &bucketRoute{config.Objects, m.Identity, to}, nil
}

// Deliver stores a message.
func (b *bucketRoute) Deliver(ctx context.Context, m Message) error {
	return at(stageWrite, b.objects.Deposit(ctx, b.vm, b.to.Bucket, b.to.Path+m.QueueID+".eml", "message/rfc822", m.Content, m.Bytes))
}

// Close implements Route.
func (*bucketRoute) Close() {}
