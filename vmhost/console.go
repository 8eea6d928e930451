package vmhost

import (
	"context"
	"net"
	"sync"

	"lodge/gateway"
)

// Console connects to the VM's serial console, both ways. QEMU serves one client at a time and lets others wait for ever, so a
// second one gets KindConflict here; reading along is what Log with follow is for.
func (h *Host) Console(ctx context.Context, id gateway.ID) (net.Conn, error) {
	w, err := h.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	if !w.claimConsole() {
		return nil, gateway.Errorf(gateway.KindConflict, "somebody else is at the console").
			WithHint("To read along: lodge logs --follow %s", h.name(id))
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", h.cfg.consoleFile(id))
	if err != nil {
		w.leaveConsole()
		return nil, gateway.Errorf(gateway.KindConflict, "the VM has no console now, as it is not running").
			WithHint("Start it: lodge start %s", h.name(id)).Because(err)
	}
	return &console{Conn: c, leave: sync.OnceFunc(w.leaveConsole)}, nil
}

type console struct {
	net.Conn
	leave func()
}

func (c *console) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
