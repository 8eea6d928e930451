package vmhost

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"lodge/gateway"
)

// Wait polls the log and the guest's sshd every waitEvery. sshd, which is slow under TCG, has
// greetLimit to send its banner.
const (
	waitEvery  = 200 * time.Millisecond
	dialLimit  = 2 * time.Second
	greetLimit = 10 * time.Second
)

// Wait returns when the guest's sshd answers. It calls report in the phases "kernel" (first output
// on the serial console; not for a guest that was resumed) and "ssh" (sshd has sent its banner), with
// the time since the VM's start.
// It fails with KindConflict when the VM stops meanwhile, and with the context's error when ctx
// ends.
func (h *Host) Wait(ctx context.Context, id gateway.ID, report func(gateway.Progress)) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	begun, logBytes := w.lastStart()
	if begun.IsZero() { // it ran before this process did
		begun = time.Now()
	}
	if logBytes != resumed {
		kernel := func() bool { return logGrew(h.cfg.logFile(id), logBytes) }
		if err := h.until(ctx, id, kernel); err != nil {
			return err
		}
		report(gateway.Progress{Phase: "kernel", Text: "the kernel has started", Elapsed: time.Since(begun)})
	}
	addr := netip.AddrPortFrom(h.vm(id).Addr, 22).String()
	if err := h.until(ctx, id, func() bool { return greets(ctx, addr) }); err != nil {
		return err
	}
	report(gateway.Progress{Phase: "ssh", Text: "the guest answers", Elapsed: time.Since(begun)})
	return nil
}

// until polls yes until it returns true, as long as the VM is up.
func (h *Host) until(ctx context.Context, id gateway.ID, yes func() bool) error {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for !yes() {
		if now := h.Status(ctx, id); ctx.Err() == nil && now.State != "running" && now.State != "starting" {
			return errEnded(h.name(id), now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func errEnded(name string, now gateway.Status) error {
	text := now.State
	if now.Reason != "" {
		text += ": " + now.Reason
	}
	return gateway.Errorf(gateway.KindConflict, "%s did not come up (%s)", name, text).
		WithHint("Its console may show why: lodge logs %s", name)
}

// logGrew reports whether the console log has output since its size was before. A different size is
// enough: virtlogd may have begun a new file.
func logGrew(file string, before int64) bool {
	info, err := os.Stat(file)
	return err == nil && info.Size() != before && info.Size() > 0
}

// greets reports whether an SSH server sends its banner at addr (RFC 4253 §4.2).
func greets(ctx context.Context, addr string) bool {
	dialer := net.Dialer{Timeout: dialLimit}
	c, err := dialer.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }() // nothing was written
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	_ = c.SetReadDeadline(time.Now().Add(greetLimit)) // an error shows in the read
	banner := make([]byte, 4)
	_, err = io.ReadFull(c, banner)
	return err == nil && string(banner) == "SSH-"
}
