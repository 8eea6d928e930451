package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"lodge/gateway"
	"lodge/gateway/control"
)

// hostListeners are the listeners that are not on taps: the host's addresses, and the unix sockets
// for root and group lodge.
type hostListeners struct {
	https, http, smtp []net.Listener
	control, s3, ssh  net.Listener
}

// openHostListeners uses the sockets that systemd passed (passedSockets), and opens the others.
func openHostListeners(ctx context.Context, cfg Config, passed map[string][]net.Listener) (_ *hostListeners, err error) {
	o := &hostListeners{https: passed["https"], http: passed["http"], smtp: passed["smtp"]}
	defer func() {
		if err != nil {
			_ = o.close() // the error that is returned has the reason
		}
	}()
	for _, service := range []struct {
		listeners *[]net.Listener
		port      int
	}{{&o.https, cfg.HTTPSPort}, {&o.http, cfg.HTTPPort}, {&o.smtp, cfg.SMTPPort}} {
		if len(*service.listeners) > 0 {
			continue
		}
		if *service.listeners, err = listenTCP(ctx, cfg.Listen, service.port); err != nil {
			return nil, err
		}
	}
	if o.s3, err = control.Listen(ctx, gateway.S3Socket(cfg.RunDir)); err != nil {
		return nil, err
	}
	if o.ssh, err = control.Listen(ctx, gateway.SSHAgentSocket(cfg.RunDir)); err != nil {
		return nil, err
	}
	o.control, err = control.Listen(ctx, gateway.ControlSocket(cfg.RunDir))
	return o, err
}

// passedSockets are the listening sockets that systemd opened for this process (sd_listen_fds(3)),
// by their FileDescriptorName: https, http and smtp. With them a restart refuses no connection.
func passedSockets() (map[string][]net.Listener, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	for name, listeners := range passed {
		if !slices.Contains([]string{"https", "http", "smtp"}, name) {
			for _, l := range listeners {
				_ = l.Close() // nothing was accepted
			}
			return nil, gateway.Invalid("systemd passed a socket named %q", name).
				WithHint("Set FileDescriptorName= of the socket unit to https, http or smtp.")
		}
	}
	return passed, nil
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
