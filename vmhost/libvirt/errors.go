package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
)

// startHint is how libvirtd is started on a machine with systemd and on one without.
const startHint = "Start it: systemctl start libvirtd (without systemd: virtlogd -d; libvirtd -d)."

// answered reports whether err, nil included, came from libvirtd itself.
func answered(err error) bool {
	if err == nil {
		return true
	}
	_, ok := errors.AsType[rpc.Error](err)
	return ok
}

// code is libvirt's number for err; ErrOk when err is not from libvirt.
func code(err error) rpc.ErrorNumber {
	if e, ok := errors.AsType[rpc.Error](err); ok {
		return rpc.ErrorNumber(e.Code)
	}
	return rpc.ErrOk
}

// explain turns err, of the operation what, into an error for people. An error from libvirtd is
// KindInternal, and no reply is KindUnavailable. A caller that gave up gets its own context error.
func (c *Client) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case code(err) == rpc.ErrNoDomain:
		return fmt.Errorf("%s: %w", what, err) // the caller recognizes an absent domain by it
	case answered(err):
		return gateway.Errorf(gateway.KindInternal, "libvirt could not %s: %v", what, err).Because(err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return explainTimeout(what, err)
	case errors.Is(err, fs.ErrPermission):
		return gateway.Errorf(gateway.KindUnavailable, "no permission to connect to libvirtd at %s", c.socket).
			WithHint("Run lodged as root.").Because(err)
	default:
		return gateway.Errorf(gateway.KindUnavailable, "libvirtd does not answer at %s", c.socket).WithHint(startHint).Because(err)
	}
}

// explainTimeout adds the cause of a slow start if a known one is found.
func explainTimeout(what string, err error) error {
	timeout := gateway.Errorf(gateway.KindUnavailable, "libvirtd did not %s in time", what).
		WithHint("If it happens again, restart it: systemctl restart libvirtd. That does not affect running VMs.").Because(err)
	if what != startTheVM {
		return timeout
	}
	if cause, remedy := slowStart("/dev/kvm", "/proc"); cause != "" {
		timeout.Msg += ": " + cause
		return timeout.WithHint("%s", remedy)
	}
	return timeout
}
