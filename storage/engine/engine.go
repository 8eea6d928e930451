// Package engine keeps objects on the local disk and serves the S3 protocol: versitygw's S3 server
// and its posix backend, with a namespace for each VM, synced writes, and a clear error where those
// two would be silent.
//
// Do gets a request and its VM. It signs the request with that VM's account, which exists only
// inside this process, and sends it over a unix socket to versitygw. versitygw's handlers call our
// backend, which takes the VM from the account and nothing else, and works below
// Dir/vms/<uuid>/<bucket>. All paths are absolute, so the working directory does not matter, and
// stays.
//
// Callers check the bucket and the key of a request (CheckBucket, CheckKey), since they are parts of
// paths. This package checks names that versitygw parses: in a copy's source, and in a list of keys
// to delete.
//
// Limits of this engine: "x" and "x/y" cannot both be keys; a key has no empty, "." or ".." part
// and no part of more than 255 bytes; on ext4 an object's metadata and tags share about 3.5 KiB.
// There are no versions, bucket policies, ACLs, CORS, object locks, server-side encryption or
// lifecycle rules: a request for one is refused, never ignored.
//
// This package never decides who is calling.
package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"

	"lodge/gateway"
	"lodge/storage/sigv4"
)

// Region is the engine's region; clients may sign for any.
const Region = gateway.S3Region

const (
	maxConnections  = 4096
	maxParts        = 10_000  // AWS's limit
	maxDeletes      = 1000    // AWS's limit for one request
	maxCopyBytes    = 5 << 30 // AWS's limit for one copy
	maxSocketPath   = 107     // sockaddr_un, without its final zero
	maxIdleConns    = 256
	idleConnTimeout = 30 * time.Second
)

// Engine is the S3 server of one state directory.
type Engine struct {
	backend   *backend
	accounts  *accounts
	calls     calls
	server    *s3api.S3ApiServer
	socket    string
	listening chan struct{} // closed when the socket is there
	ready     chan struct{} // closed when requests may come
	first     sync.Once
	http      atomic.Pointer[fasthttp.Server] // set by the first request
	transport *http.Transport
}

// New prepares dir and completes what a crash interrupted: removals of VMs, temporary files,
// multipart uploads that were being completed. The file system must have extended attributes.
func New(dir string, log *slog.Logger) (*Engine, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	socket := filepath.Join(dir, "engine.sock")
	if len(socket) > maxSocketPath {
		return nil, gateway.Invalid("the path %s is too long for a socket (%d bytes; %d are possible)", socket, len(socket), maxSocketPath)
	}
	b, err := newBackend(dir, log)
	if err != nil {
		return nil, err
	}
	if err := b.recover(); err != nil {
		return nil, err
	}
	e := &Engine{
		backend: b, accounts: newAccounts(), calls: calls{open: map[string]*sync.WaitGroup{}}, socket: socket,
		listening: make(chan struct{}), ready: make(chan struct{}),
	}
	e.transport = &http.Transport{
		DialContext:         e.dial,
		MaxIdleConns:        maxIdleConns,
		MaxIdleConnsPerHost: maxIdleConns,
		IdleConnTimeout:     idleConnTimeout,
		DisableCompression:  true,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
	}
	return e, e.newServer()
}

func newBackend(dir string, log *slog.Logger) (*backend, error) {
	for _, d := range []string{dir, filepath.Join(dir, vmsDir), filepath.Join(dir, removingDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make %s: %w", d, err)
		}
	}
	if err := (meta.XattrMeta{}).Test(dir); err != nil {
		return nil, gateway.Errorf(gateway.KindInvalid, "the file system of %s has no extended attributes", dir).
			WithHint("Put the state directory on ext4, XFS or Btrfs.").Because(err)
	}
	if err := syncUp(filepath.Join(dir, vmsDir), filepath.Dir(dir)); err != nil {
		return nil, err
	}
	opts := posix.PosixOpts{
		ForceNoTmpFile:      true, // an object is replaced by one rename; recover finds the rest of a crash in .sgwtmp
		ForceNoObjLockFile:  true, // there is one process
		CopyObjectThreshold: maxCopyBytes,
	}
	opts.SetNewDirPerm(0o700)
	opts.SetNewFilePerm(0o600)
	// "." keeps the working directory: the backend changes to its root, but every bucket is an
	// absolute path.
	p, err := posix.New(".", meta.XattrMeta{}, opts)
	if err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	return &backend{posix: p, dir: dir, log: log, staging: staging{writes: map[string]int{}}}, nil
}

func (e *Engine) newServer() error {
	utils.SetBucketNameValidationStrict(false)                                      // they are checked
	root := middlewares.RootUserConfig{Access: rootAccount, Secret: randomSecret()} // never used to sign
	var err error
	e.server, err = s3api.New(e.backend, root, Region, e.accounts, nil, nil, nil, nil,
		s3api.WithQuiet(), s3api.WithKeepAlive(), s3api.WithMpMaxParts(maxParts), s3api.WithSocketPerm(0o600),
		s3api.WithConcurrencyLimiter(maxConnections, maxConnections), s3api.WithOnListen(func() { close(e.listening) }), s3api.WithMiddleware("/", e.meet))
	if err != nil {
		return fmt.Errorf("make S3 server: %w", err)
	}
	return nil
}

// Run serves until ctx is done. It can be called once.
func (e *Engine) Run(ctx context.Context) error {
	if err := os.Remove(e.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- e.server.ServeMultiPort([]string{e.socket}) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve objects: %w", err)
	case <-e.listening:
	}
	err := e.begin(ctx)
	if err == nil {
		select {
		case err := <-served:
			return fmt.Errorf("serve objects: %w", err)
		case <-ctx.Done():
		}
	}
	e.transport.CloseIdleConnections()
	down := e.server.ShutDown()
	<-served // its error is that of begin, or that of the shutdown
	if ctx.Err() != nil {
		err = nil // the caller ended it
	}
	if down != nil {
		err = errors.Join(err, fmt.Errorf("stop object server: %w", down))
	}
	return err
}

// begin makes the one request that gives meet the HTTP server beneath versitygw, and waits for its
// end. Other requests come only after it, so the server is not in use while it is changed.
func (e *Engine) begin(ctx context.Context) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", e.socket)
	if err != nil {
		return fmt.Errorf("reach object server: %w", err)
	}
	defer func() { _ = c.Close() }() // it has been read to its end
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"); err != nil {
		return fmt.Errorf("reach object server: %w", err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		return fmt.Errorf("reach object server: %w", err)
	}
	for tick := time.NewTicker(time.Millisecond); ; {
		if server := e.http.Load(); server != nil && server.GetOpenConnectionsCount() == 0 {
			tick.Stop()
			close(e.ready)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// meet is a middleware that admits the calls of Do, which it counts, and no other request. It stops
// versitygw from writing to standard error whenever a client goes away.
func (e *Engine) meet(c fiber.Ctx) error {
	e.first.Do(func() {
		server := c.App().Server()
		server.ErrorHandler = func(ctx *fasthttp.RequestCtx, err error) {
			e.backend.log.Debug("s3 request ended early", slog.Any("err", err))
			ctx.SetStatusCode(http.StatusBadRequest)
			ctx.SetConnectionClose()
		}
		e.http.Store(server)
	})
	done, ok := e.calls.handle(c.Get(callHeader))
	if !ok {
		return c.SendStatus(http.StatusServiceUnavailable) // its client has left
	}
	defer done()
	return c.Next()
}

// Do carries out r for vm. r.URL needs the path and the query only; r's signature, if it has one,
// is replaced. When Do returns, no work on r is in progress, even if r's context has ended.
func (e *Engine) Do(r *http.Request, vm gateway.Identity) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host, r.Host, r.RequestURI = "http", "engine", "engine", ""
	number, end := e.calls.add()
	defer end()
	r.Header.Set(callHeader, number)
	access := vm.ID.String()
	if err := sigv4.Sign(r, access, e.accounts.secret(access), Region, time.Now()); err != nil {
		return nil, err
	}
	return e.transport.RoundTrip(r)
}

// BeginWrite prepares a write by Do to a bucket that may not exist. The bucket begins to exist with
// the first object or upload in it. Call end after Do.
func (e *Engine) BeginWrite(vm gateway.Identity, bucket string) (end func(), err error) {
	p := place{id: vm.ID, bucket: bucket, path: e.backend.bucketPath(vm.ID, bucket)}
	end, err = e.backend.beginWrite(p)
	return end, e.backend.fail("stage bucket", p, err)
}

// Remove removes all that a VM has stored. The caller admits no request of the VM any more, and has
// waited for those in progress. If the host crashes, New completes it. It can be repeated.
func (e *Engine) Remove(id gateway.ID) error { return e.backend.remove(id) }

func (e *Engine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	select {
	case <-e.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(5 * time.Second):
		return nil, errors.New("the object server is not running")
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", e.socket)
}

func randomSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails (it aborts the program instead)
	return hex.EncodeToString(b[:])
}
