package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/gateway/sockets"
)

// hostListeners are the listeners that are not on taps: the host's addresses, and the unix sockets
// for root and group lodge.
type hostListeners struct {
	https, http, smtp []net.Listener
	imaps             []net.Listener   // none without the setting
	http3             []net.PacketConn // none without the setting
	control, s3, ssh  net.Listener
	responder         *responderSockets
}

// openSockets opens the listeners, and keeps them for the daemon after this one.
func openSockets(ctx context.Context, cfg Config, log *slog.Logger) (*hostListeners, *sockets.Set, error) {
	kept, err := takePassed(log)
	if err != nil {
		return nil, nil, err
	}
	outside, err := openHostListeners(ctx, cfg, kept)
	if err != nil {
		kept.Close()
		return nil, nil, err
	}
	kept.CloseRest(hostSockets...) // the configuration no longer has their addresses
	kept.Store()
	return outside, kept, nil
}

// openHostListeners uses the inherited sockets at the addresses of the configuration, and opens the
// others.
func openHostListeners(ctx context.Context, cfg Config, kept *sockets.Set) (_ *hostListeners, err error) {
	o := new(hostListeners)
	defer func() {
		if err != nil {
			_ = o.close() // the error that is returned has the reason
		}
	}()
	for _, service := range []struct {
		name      string
		listeners *[]net.Listener
		port      int
	}{{"https", &o.https, cfg.HTTPSPort}, {"http", &o.http, cfg.HTTPPort}, {"smtp", &o.smtp, cfg.SMTPPort}, {"imaps", &o.imaps, cfg.IMAPPort}} {
		if service.listeners == &o.imaps && cfg.IMAPPort == 0 {
			continue // it is off
		}
		for _, a := range cfg.Listen {
			l, err := listenTCP(ctx, kept, service.name, netip.AddrPortFrom(a, uint16(service.port))) //nolint:gosec // Config.check has checked the range
			if err != nil {
				return nil, err
			}
			*service.listeners = append(*service.listeners, l)
		}
	}
	if o.http3, err = openHTTP3(ctx, cfg, kept); err != nil {
		return nil, err
	}
	if o.responder, err = openResponder(ctx, cfg, kept); err != nil {
		return nil, err
	}
	for _, service := range []struct {
		name     string
		listener *net.Listener
		path     string
	}{
		{"s3", &o.s3, gateway.S3Socket(cfg.RunDir)},
		{"ssh", &o.ssh, gateway.SSHAgentSocket(cfg.RunDir)},
		{"control", &o.control, gateway.ControlSocket(cfg.RunDir)},
	} {
		l, err := openUnix(ctx, kept, service.name, service.path)
		if err != nil {
			return nil, err
		}
		*service.listener = l
	}
	return o, nil
}

func (o *hostListeners) all() []net.Listener {
	all := slices.Concat(o.https, o.http, o.smtp, o.imaps)
	for _, l := range []net.Listener{o.s3, o.ssh, o.control} {
		if l != nil {
			all = append(all, l)
		}
	}
	return all
}

func (o *hostListeners) close() error {
	var errs []error
	for _, l := range o.all() {
		errs = append(errs, l.Close())
	}
	for _, c := range o.http3 {
		errs = append(errs, c.Close())
	}
	if o.responder != nil {
		errs = append(errs, o.responder.close())
	}
	return errors.Join(errs...)
}

// String lists the addresses, for the log.
func (o *hostListeners) String() string {
	var addrs []string
	for _, l := range o.all() {
		addrs = append(addrs, l.Addr().String())
	}
	return strings.Join(addrs, " ")
}
