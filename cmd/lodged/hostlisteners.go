package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"

	"lodge/gateway"
	"lodge/gateway/control"
)

// hostListeners are the listeners that are not on taps: the host's addresses, and the unix sockets
// for root and group lodge.
type hostListeners struct {
	https, http, smtp []net.Listener
	http3             []net.PacketConn // none without the setting
	control, s3, ssh  net.Listener
	responder         *responderSockets
}

// openSockets opens the listeners, and holds them for the daemon after this one.
func openSockets(ctx context.Context, cfg Config) (*hostListeners, heldSockets, error) {
	passed, err := takePassed()
	if err != nil {
		return nil, nil, err
	}
	outside, err := openHostListeners(ctx, cfg, passed)
	if err != nil {
		passed.close()
		return nil, nil, err
	}
	passed.remove()
	held, err := hold(outside.byName())
	if err != nil {
		return nil, nil, errors.Join(err, outside.close())
	}
	if err := held.store(); err != nil {
		return nil, nil, errors.Join(err, outside.close())
	}
	return outside, held, nil
}

// openHostListeners uses the passed sockets at the addresses of the configuration, and opens the
// others.
func openHostListeners(ctx context.Context, cfg Config, passed passedSockets) (_ *hostListeners, err error) {
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
	}{{"https", &o.https, cfg.HTTPSPort}, {"http", &o.http, cfg.HTTPPort}, {"smtp", &o.smtp, cfg.SMTPPort}} {
		for _, a := range cfg.Listen {
			at := netip.AddrPortFrom(a, uint16(service.port)) //nolint:gosec // Config.check has checked the range
			l, ok := take(passed, service.name, tcpAt(at))
			if !ok {
				if l, err = listenTCP(ctx, at); err != nil {
					return nil, err
				}
			}
			*service.listeners = append(*service.listeners, l)
		}
	}
	if o.http3, err = openHTTP3(ctx, cfg); err != nil {
		return nil, err
	}
	if o.responder, err = openResponder(ctx, cfg, passed); err != nil {
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
		l, err := openUnix(ctx, passed, service.name, service.path)
		if err != nil {
			return nil, err
		}
		*service.listener = l
	}
	return o, nil
}

// openUnix uses the passed socket of a service, or opens its unix socket.
func openUnix(ctx context.Context, passed passedSockets, name, path string) (net.Listener, error) {
	l, ok := take(passed, name, func(s io.Closer) (net.Listener, bool) {
		l, ok := s.(net.Listener)
		if !ok {
			return nil, false
		}
		return control.Adopt(l, path)
	})
	if ok {
		return l, nil
	}
	return control.Listen(ctx, path)
}

// byName are the sockets by the names of their services.
func (o *hostListeners) byName() map[string][]io.Closer {
	all := map[string][]io.Closer{}
	add := func(name string, listeners ...net.Listener) {
		for _, l := range listeners {
			all[name] = append(all[name], l)
		}
	}
	add("https", o.https...)
	add("http", o.http...)
	add("smtp", o.smtp...)
	add("dns", o.responder.tcp...)
	for _, c := range o.responder.udp {
		all["dns"] = append(all["dns"], c)
	}
	add("s3", o.s3)
	add("ssh", o.ssh)
	add("control", o.control)
	return all
}

func (o *hostListeners) all() []net.Listener {
	all := append(append(append([]net.Listener{}, o.https...), o.http...), o.smtp...)
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
