package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// terminals have a console and a log that stay empty, until they are closed.
type terminals struct{ api.Terminals }

func (terminals) Console(context.Context, gateway.ID) (net.Conn, error) {
	ours, guests := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, guests) }() // until ours is closed
	return ours, nil
}

func (t terminals) Log(ctx context.Context, id gateway.ID, _ bool) (io.ReadCloser, error) {
	return t.Console(ctx, id)
}

// patient waits, and makes VMs, until the context ends.
type patient struct {
	api.Machines
	api.Observer
	began chan<- struct{}
}

func (p patient) Wait(ctx context.Context, _ gateway.ID, _ func(gateway.Progress)) error {
	p.began <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (p patient) New(ctx context.Context, _ gateway.Spec, _ func(gateway.Progress)) (gateway.VM, error) {
	return gateway.VM{}, p.Wait(ctx, gateway.ID{}, nil)
}

func (patient) Status(context.Context, gateway.ID) gateway.Status { return gateway.Status{} }

// lasts are calls that last. Each sends on began once it is under way, and returns when it is over.
var lasts = map[string]func(context.Context, api.Session, chan<- struct{}) error{
	"console": func(ctx context.Context, s api.Session, began chan<- struct{}) error {
		c, err := s.Console(ctx, "blog")
		return readToEnd(c, err, began)
	},
	"log": func(ctx context.Context, s api.Session, began chan<- struct{}) error {
		c, err := s.Log(ctx, "blog", true)
		return readToEnd(c, err, began)
	},
	"wait": func(ctx context.Context, s api.Session, _ chan<- struct{}) error {
		_, err := s.Wait(ctx, "blog", api.SSH, func(gateway.Progress) {})
		return err
	},
	"new": func(ctx context.Context, s api.Session, _ chan<- struct{}) error {
		_, err := s.New(ctx, gateway.Spec{Name: "more"}, func(gateway.Progress) {})
		return err
	},
}

func readToEnd(c io.ReadCloser, err error, began chan<- struct{}) error {
	if err != nil {
		return err
	}
	began <- struct{}{}
	_, err = io.Copy(io.Discard, c)
	return errors.Join(errOver, err, c.Close())
}

var errOver = errors.New("the stream is over")

// What a person has open ends when they may no longer open it, and only then; an owner's goes on.
func TestWhatLastsEndsWithItsPermission(t *testing.T) {
	for name, revoke := range map[string]func(*testing.T, *api.API){
		"the grant": func(t *testing.T, a *api.API) {
			t.Helper()
			_, err := a.As(api.Owner()).Grant(t.Context(), "blog", api.Grant{Who: "ada@example.com", Level: gateway.View})
			gatewaytest.Must(t, err)
		},
		"the person": func(t *testing.T, a *api.API) {
			t.Helper()
			_, err := a.People.Remove(t.Context(), "ada@example.com")
			gatewaytest.Must(t, err)
		},
		"the VM": func(t *testing.T, a *api.API) {
			t.Helper()
			m, _ := a.Directory.ByName("blog")
			gatewaytest.Must(t, a.Directory.Delete(t.Context(), m.ID))
		},
		"the role": func(t *testing.T, a *api.API) {
			t.Helper()
			_, _, err := a.People.Add(t.Context(), "ada@example.com", people.Guest)
			gatewaytest.Must(t, err)
		},
	} {
		for call, last := range lasts {
			if ofVM := call != "new"; ofVM && name == "the role" || !ofVM && (name == "the grant" || name == "the VM") {
				continue // has nothing to do with it
			}
			t.Run(call+" without "+name, func(t *testing.T) {
				a, _ := sharing(t)
				began := make(chan struct{}, 1)
				a.Terminals, a.Machines, a.Observer = terminals{}, patient{began: began}, patient{began: began}
				ada, _, err := a.People.Add(t.Context(), "ada@example.com", people.Member)
				gatewaytest.Must(t, err)
				_, err = a.As(api.Owner()).Grant(t.Context(), "blog", api.Grant{Who: ada.Mail, Level: gateway.Use})
				gatewaytest.Must(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				hers, owners := make(chan error, 1), make(chan error, 1)
				go func() { hers <- last(ctx, a.As(api.PersonCaller(ada.ID)), began) }()
				<-began
				go func() { owners <- last(ctx, a.As(api.Owner()), began) }()
				<-began
				_, _, err = a.People.Add(t.Context(), "bob@example.com", "") // has all calls decided again
				gatewaytest.Must(t, err)
				select {
				case err := <-hers:
					t.Fatalf("with the permission: %v", err)
				default:
				}
				revoke(t, a)
				if err := <-hers; !errors.Is(err, errOver) && gateway.KindOf(err) != gateway.KindDenied {
					t.Errorf("without it: %v", err)
				}
				select {
				case err := <-owners:
					t.Errorf("the owner's ended: %v", err)
				default:
				}
				cancel()
				<-owners
			})
		}
	}
}

// A call whose permission ends before it is under way ends at once.
func TestPermissionThatEndedBeforeItLasts(t *testing.T) {
	a, _ := sharing(t)
	ada, revoke := manager(t, a)
	a.Terminals = late{revoke: revoke}
	c, err := ada.Console(t.Context(), "blog")
	gatewaytest.Must(t, err)
	if err := readToEnd(c, nil, make(chan struct{}, 1)); !errors.Is(err, errOver) {
		t.Errorf("the console: %v", err)
	}
}

// late loses the permission while a console is opened.
type late struct {
	terminals
	revoke func()
}

func (l late) Console(ctx context.Context, id gateway.ID) (net.Conn, error) {
	l.revoke()
	return l.terminals.Console(ctx, id)
}
