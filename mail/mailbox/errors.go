package mailbox

import (
	"errors"

	"lodge/gateway"
)

func errGone() error { return gateway.Errorf(gateway.KindNotFound, "the VM's mailbox is gone") }

// errNoMessage is what a queue id or UID that is not there gives.
func errNoMessage() error {
	return gateway.Errorf(gateway.KindNotFound, "no such message").WithHint("lodge mail <vm> lists the messages there are.")
}

// SpaceOr turns "the disk is full" into an error for people; others stay as they are.
func SpaceOr(err error) error {
	if IsFull(err) {
		return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").
			WithHint("Free some space on the host; mail comes in again by itself.").Because(err)
	}
	return err
}

// IsFull reports whether err says that the disk or a quota is full.
func IsFull(err error) bool {
	return errors.Is(err, errNoSpace) || errors.Is(err, errQuota)
}
