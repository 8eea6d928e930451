package vmhost

import (
	"context"
	"net"
	"sync"

	"lodge/gateway"
)

// Console connects to the VM's serial console, for reading and writing. QEMU serves one client at a
// time, so a second one gets KindConflict. Log with follow serves any number of readers.
func (h *Host) Console(ctx context.Context, id gateway.ID) (net.Conn, error) {
	w, err := h.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	if !w.claimConsole() {
		return nil, gateway.Errorf(gateway.KindConflict, "another client is connected to the console").
			WithHint("To follow its output: lodge logs --follow %s", h.name(id))
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", h.cfg.consoleFile(id))
	if err != nil {
		w.leaveConsole()
		return nil, gateway.Errorf(gateway.KindConflict, "the VM is not running, so it has no console").
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
