package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lodge/cmd/lodged/memory"
	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	kv "lodge/gateway/store"
	"lodge/storage"
	"lodge/storage/store"
)

const quota = 1 << 40 // of the VM: it is counted, and not reached

// vmID is the VM of all objects.
func vmID() gateway.ID {
	sum := sha256.Sum256([]byte("bench"))
	return gateway.ID(sum[:len(gateway.ID{})])
}

// serveLodged serves the objects of a VM in a state directory, as at its tap, until ctx ends. It prints the address
// and keys.
func serveLodged(ctx context.Context, dir string) error {
	db, err := kv.Open(ctx, filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // each change was written
	known, err := gateway.OpenDirectory(ctx, db)
	if err != nil {
		return err
	}
	vm, ok := known.ByID(vmID())
	if !ok {
		vm, err = known.Create(ctx, gateway.VM{Identity: gateway.Identity{ID: vmID(), Name: "bench"}, Desired: gateway.Running, Ready: true})
		if err != nil {
			return err
		}
	}
	book, err := people.Open(ctx, db.Shared(), "owner@bench.localhost")
	if err != nil {
		return err
	}
	keyring := gateway.NewKeyring([32]byte{1}, known)
	go memory.Keep(ctx)
	server, err := storage.New(storage.Config{
		Dir: filepath.Join(dir, "objects"), Keyring: keyring, Directory: known, People: book, Quota: quota,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	keys, err := keyring.Issue(vm.ID, time.Now())
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr(), keys.AccessKey, keys.SecretKey)
	web := &http.Server{Handler: server.Handler(), ConnContext: gateway.ConnContext, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 2)
	go func() { ended <- server.Run(ctx) }()
	go func() { ended <- web.Serve(gatewaytest.Listener(l, vm.Identity)) }()
	<-ctx.Done()
	err = web.Close()
	for range 2 {
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// fill stores n objects of a few bytes in a state directory that is not being served.
func fill(ctx context.Context, dir string, n int) error {
	if err := os.MkdirAll(filepath.Join(dir, "objects"), 0o700); err != nil {
		return err
	}
	objects, err := store.Open(filepath.Join(dir, "objects"), store.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	const writers = 128 // they share the log's syncs
	failed := make(chan error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < n; i += writers {
				key := store.Key{VM: vmID(), Bucket: bucket, Name: manyKey(i)}
				if _, err := objects.Put(ctx, key, store.Write{Body: bytes.NewReader([]byte("0123456789")), Size: 10}); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err = <-failed:
	default:
	}
	return errors.Join(err, objects.Close())
}

func manyKey(i int) string { return fmt.Sprintf("m%07d", i) }
