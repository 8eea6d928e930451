package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"lodge/cmd/lodged/memory"
	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/https"
)

const owner = "owner@bench.localhost"

// serveLodged serves a VM, private or public, whose every port leads to the app, until ctx ends. It
// prints a login link and the path of the root certificate.
func serveLodged(ctx context.Context, port, app string, public bool) error {
	dir, err := os.MkdirTemp("", "bench-lodged-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left is in the directory of temporary files
	db, err := store.Open(ctx, filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // its directory is removed
	web, link, err := newWeb(ctx, db, dir, port, app, public)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", link, filepath.Join(dir, "ca", "root.crt"))
	go memory.Keep(ctx)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		ended, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = web.Shutdown(ended) // idle connections of the load are no loss
	})
	return web.Serve(l)
}

// newWeb makes the web side for a VM, and a login link.
func newWeb(ctx context.Context, db *store.Store, dir, port, app string, public bool) (*https.Server, string, error) {
	vms, err := gateway.OpenDirectory(ctx, db)
	if err != nil {
		return nil, "", err
	}
	vm, err := vms.Create(ctx, appVM(public))
	if err != nil {
		return nil, "", err
	}
	known, err := people.Open(ctx, db.Shared(), owner)
	if err != nil {
		return nil, "", err
	}
	requests, err := people.OpenRequests(ctx, db.Shared(), time.Now)
	if err != nil {
		return nil, "", err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, "", err
	}
	web, err := https.New(https.Config{
		Domain: "bench.localhost", Port: number, Dir: filepath.Join(dir, "ca"),
		Directory: vms, People: known, Logins: db.Logins(), Sessions: db.WebSessions(), Passkeys: db.Passkeys(), Kept: db, Requests: requests,
		NoRates: true, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Dial: func(ctx context.Context, _ gateway.VM, _ uint16) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+app)
		},
	})
	if err != nil {
		return nil, "", err
	}
	link, err := web.LoginURL(ctx, vm.ID, known.Owner().ID)
	return web, link, err
}

func appVM(public bool) gateway.VM {
	vm := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "app"}, Desired: gateway.Running, Ready: true}
	if public {
		vm.Shares = vm.WithShare(gateway.Share{Port: gateway.DefaultPort, Visibility: gateway.Public})
	}
	return vm
}

// loginTransport reaches lodged by its address.
func loginTransport(p *peer) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: host, InsecureSkipVerify: true}, //nolint:gosec // the bench measures, and has no secrets
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.addr())
		},
	}
}
