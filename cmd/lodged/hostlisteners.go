package main

import (
	"context"
	"errors"
	"net"
	"strings"

	"lodge/gateway"
	"lodge/gateway/control"
)

// hostListeners are the listeners that are not on taps: the host's addresses, and the unix sockets that root alone can use.
type hostListeners struct {
	https, http, smtp []net.Listener
	control, s3       net.Listener
}

func openOutside(ctx context.Context, cfg Config) (_ *hostListeners, err error) {
	o := new(hostListeners)
	defer func() {
		if err != nil {
			_ = o.close() // the error that is returned says why
		}
	}()
	if o.https, err = listenTCP(ctx, cfg.Listen, cfg.HTTPSPort); err != nil {
		return nil, err
	}
	if o.http, err = listenTCP(ctx, cfg.Listen, cfg.HTTPPort); err != nil {
		return nil, err
	}
	if o.smtp, err = listenTCP(ctx, cfg.Listen, cfg.SMTPPort); err != nil {
		return nil, err
	}
	if o.s3, err = control.Listen(ctx, gateway.S3Socket(cfg.RunDir)); err != nil {
		return nil, err
	}
	o.control, err = control.Listen(ctx, gateway.ControlSocket(cfg.RunDir))
	return o, err
}

func (o *hostListeners) all() []net.Listener {
	all := append(append(append([]net.Listener{}, o.https...), o.http...), o.smtp...)
	for _, l := range []net.Listener{o.s3, o.control} {
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
