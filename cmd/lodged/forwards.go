package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"syscall"

	"lodge/gateway"
	"lodge/gateway/forward"
	"lodge/gateway/sockets"
)

// newForwards makes the part that leads ports of the host to VMs.
func newForwards(cfg Config, s *state, kept *sockets.Set, log *slog.Logger) *forward.Server {
	own := map[gateway.HostPort]string{}
	for what, port := range map[string]int{"https_port": cfg.HTTPSPort, "http_port": cfg.HTTPPort, "smtp_port": cfg.SMTPPort} {
		own[gateway.HostPort{Protocol: gateway.TCP, Port: uint16(port)}] = what //nolint:gosec // Config.check has checked the range
	}
	if cfg.IMAPPort != 0 {
		own[gateway.HostPort{Protocol: gateway.TCP, Port: uint16(cfg.IMAPPort)}] = "imap_port" //nolint:gosec // as above
	}
	return forward.New(forward.Config{
		Directory: s.directory, Claims: s.store.Forwards(), Addrs: cfg.Listen, Own: own, Explain: explainForward, Sockets: kept, Logger: log,
	})
}

// explainForward is explainListen for a port that a person has chosen on the command line.
func explainForward(ctx context.Context, network string, at netip.AddrPort, err error) error {
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return gateway.Invalid("the host has no address %s", at.Addr()).Because(err).WithHint("ip -brief address lists the host's addresses.")
	}
	err = explainListen(ctx, network, at, err)
	if e, ok := errors.AsType[*gateway.Error](err); ok && e.Kind == gateway.KindConflict {
		return e.WithHint("Stop that process, or choose another port.")
	}
	return err
}
