// Package storage is the S3 service: unmodified AWS SDKs and tools inside a VM store files at once,
// without a key.
//
// A request arrives at Handler. identify determines its VM: that of the tap of the connection, or
// without a tap that of the issued credentials that signed it. refuse rejects what the engine would
// ignore. rewrite makes a new request from the checked bucket and key. The first write to a bucket
// makes it. The engine keeps objects under the VM's UUID, and its answer goes back unchanged.
//
// Both styles of address work, http://s3.lodge.internal/bucket/key and
// http://bucket.s3.lodge.internal/key, on any listener. TLS ends before this package. A signature
// may be for any region.
//
// This package never identifies a caller by a header or a bucket's name, and never answers before
// the data is on disk.
package storage

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lodge/gateway"
	"lodge/storage/engine"
)

// Config is what New needs.
type Config struct {
	Dir       string // where objects are kept, on a file system with extended attributes
	Keyring   *gateway.Keyring
	Directory *gateway.Directory
	Logger    *slog.Logger
	AccessLog bool // log every request
}

// Server is the S3 service of one host.
type Server struct {
	keyring   *gateway.Keyring
	log       *slog.Logger
	accessLog bool
	objects   objects
	tenants   *tenants
	requests  *prometheus.CounterVec // by method and status
}

// objects is the engine behind the service: the disk of this host, later a cluster.
type objects interface {
	// Do carries out a request whose path is /bucket/key, in the VM's own namespace. When it returns,
	// no work on the request is in progress.
	Do(r *http.Request, vm gateway.Identity) (*http.Response, error)
	// BeginWrite prepares the write that follows, to a bucket which may not exist: it begins to exist
	// when the write succeeds. Call end after the write.
	BeginWrite(vm gateway.Identity, bucket string) (end func(), err error)
	// Remove deletes the namespace of a VM that has no request in progress.
	Remove(id gateway.ID) error
	// Run serves until ctx is done.
	Run(ctx context.Context) error
}

// New opens the objects in cfg.Dir and finishes what a crash interrupted there.
func New(cfg Config) (*Server, error) {
	if cfg.Dir == "" || cfg.Keyring == nil || cfg.Directory == nil || cfg.Logger == nil {
		return nil, errors.New("open storage: the configuration is incomplete")
	}
	store, err := engine.New(filepath.Clean(cfg.Dir), cfg.Logger)
	if err != nil {
		return nil, err
	}
	return &Server{
		keyring: cfg.Keyring, log: cfg.Logger, accessLog: cfg.AccessLog,
		objects: store, tenants: newTenants(cfg.Directory), requests: newRequestCounter(),
	}, nil
}

// Run runs the engine until ctx is done. Earlier requests wait for it for some seconds.
func (s *Server) Run(ctx context.Context) error { return s.objects.Run(ctx) }

// Remove ends the requests of a VM, whose record is marked as removed, and removes its objects. It
// can be repeated after a crash.
func (s *Server) Remove(ctx context.Context, id gateway.ID) error {
	if err := s.tenants.end(ctx, id); err != nil {
		return err
	}
	return s.objects.Remove(id)
}

// Handler serves S3. Connections from taps carry their VM in the request's context
// (gateway.ConnContext).
func (s *Server) Handler() http.Handler {
	return continueEmpty(promhttp.InstrumentHandlerCounter(s.requests, http.HandlerFunc(s.serve)))
}

// continueEmpty answers 100 to a client that expects it before an empty body. net/http does so only
// once a body is read. botocore expects it for empty ones too, and without it takes the answer to the
// connection's next request for this one's.
func continueEmpty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
			w.WriteHeader(http.StatusContinue)
		}
		next.ServeHTTP(w, r)
	})
}
