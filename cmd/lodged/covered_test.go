package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Mail that came after a checkpoint and went into a bucket is there after a rollback: the bucket goes back, and it is
// delivered again.
func TestRollbackOfMailInABucket(t *testing.T) {
	d := newLodged(t)
	vm, err := d.state.directory.Update(t.Context(), d.vms["alpha"].ID, func(m *gateway.VM) error {
		m.Desired, m.Mail.Route = gateway.Stopped, "s3://mail/in/"
		return nil
	})
	gatewaytest.Must(t, err)
	port, err := listenTCP(t.Context(), nil, "", netip.MustParseAddrPort("127.0.0.1:0"))
	gatewaytest.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, run := range []func() error{
		func() error { return d.objects.Run(ctx) }, func() error { return d.mail.Run(ctx) }, func() error { return d.mail.ServeSMTP(port) },
	} {
		running.Go(func() { _ = run() }) // ends with the daemon
	}
	t.Cleanup(func() { cancel(); _ = d.mail.Shutdown(context.WithoutCancel(ctx)); running.Wait() })
	send := func(text string, objects int64) {
		t.Helper()
		c, err := smtp.Dial(port.Addr().String())
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, c.SendMail("a@example.com", []string{"x@alpha." + d.cfg.Domain}, strings.NewReader("Subject: "+text+"\r\n\r\n"+text+"\r\n")))
		gatewaytest.Must(t, c.Quit())
		d.wantObjects(t, vm.ID, objects)
	}
	one := gateway.CheckpointID(gateway.NewID().String())
	send("before", 1)
	for _, part := range d.covered() {
		release, err := part.Mark(t.Context(), vm.ID, one)
		gatewaytest.Must(t, err)
		release()
	}
	send("after", 2)
	send("later", 3)
	for _, part := range d.covered() {
		gatewaytest.Must(t, part.Rewind(t.Context(), vm.ID, one))
		gatewaytest.Eventually(t, func() error { // a slow rollback: whatever can be delivered by now is
			state, err := d.mail.State(t.Context(), vm.Identity)
			if err == nil && state.Waiting > 0 {
				err = errors.New("mail waits")
			}
			return err
		})
	}
	d.wantObjects(t, vm.ID, 3)
}

// wantObjects waits until a VM has so many objects.
func (d *lodged) wantObjects(t *testing.T, vm gateway.ID, n int64) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		u, _, err := d.objects.Usage(t.Context(), vm)
		if err == nil && u.Objects != n {
			err = errors.New("not yet")
		}
		return err
	})
}
