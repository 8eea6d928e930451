package mailbox

import (
	"errors"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// errRemoved is what a mailbox of a removed VM gives.
func errRemoved() error {
	return gateway.Errorf(gateway.KindNotFound, "the VM's mailbox was removed")
}

// errClosed is what everything gives after Store.Close.
func errClosed() error {
	return gateway.Errorf(gateway.KindUnavailable, "the mail store is closed")
}

var errHeldBack = errors.New("held back")

// errHeld is what a change gives that a checkpoint holds back for too long.
func errHeld() error {
	return gateway.Errorf(gateway.KindUnavailable, "a checkpoint of the VM is being made").WithHint("Try again.").Because(errHeldBack)
}

// Held reports whether an error means that a checkpoint held a change back for too long: it succeeds later.
func Held(err error) bool { return errors.Is(err, errHeldBack) }

// errNoMessage is what an unknown queue id or UID gives.
func errNoMessage() error {
	return gateway.Errorf(gateway.KindNotFound, "no such message").WithHint("lodge mail <vm> lists the messages.")
}

// withKind gives the error of a full disk its kind and a hint. Other errors stay as they are.
func withKind(err error) error {
	if durable.IsFull(err) {
		return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").
			WithHint("Free some space on the host; mail is then accepted again.").Because(err)
	}
	return err
}
