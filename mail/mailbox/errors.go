package mailbox

import (
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
