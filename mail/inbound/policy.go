package inbound

import "lodge/gateway"

// policy decides who may send to whom: anyone to the VMs of this host, and to no other address.
type policy struct {
	domain    string
	directory *gateway.Directory
	maxBytes  int64 // a message must be smaller
}

// sender checks MAIL FROM and its SIZE.
func (p policy) sender(address string, size int64) error {
	switch {
	case !isValid(address):
		return replyBadAddress()
	case size > p.maxBytes:
		return replyTooBig()
	}
	return nil
}

// recipient checks RCPT TO, and returns the VM.
func (p policy) recipient(address string) (recipient, error) {
	if !isValid(address) {
		return recipient{}, replyBadAddress()
	}
	name, ok := vmName(address, p.domain)
	if !ok {
		return recipient{}, replyRelay()
	}
	m, ok := p.directory.ByName(name)
	if !ok || m.Desired == gateway.Removed {
		return recipient{}, replyUnknown()
	}
	return recipient{vm: m.Identity, address: address}, nil
}

// stillExist refuses a message for a VM that was removed between RCPT and the end of DATA.
func (p policy) stillExist(rcpts []recipient) error {
	for _, r := range rcpts {
		if m, ok := p.directory.ByID(r.vm.ID); !ok || m.Desired == gateway.Removed {
			return replyUnknown()
		}
	}
	return nil
}
