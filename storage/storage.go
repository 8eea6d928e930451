// Package storage is the S3 service: unmodified AWS SDKs and tools inside a VM store files at once,
// without a key.
//
// A request arrives at Handler. identify determines its VM: that of the tap of the connection, or
// without a tap that of the issued credentials that signed it, which at a public name (outside.go) may be
// ones for outside. There public.go serves what nobody has signed, and on taps granted.go finds buckets of
// other VMs. admission limits the VM's requests. Then
// package s3 carries the request out, in package store, which keeps objects under the VM's UUID. The
// first write to a bucket makes it.
//
// Both styles of address work, http://s3.lodge.internal/bucket/key and
// http://bucket.s3.lodge.internal/key, on any listener. TLS ends before this package. A signature
// may be for any region.
//
// This package never identifies a caller by a header or a bucket's name, and never answers before
// the data is on disk.
package storage

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/storage/events"
	"lodge/storage/s3"
	"lodge/storage/store"
)

// Config is what New needs.
type Config struct {
	Dir       string // where objects are kept
	Keyring   *gateway.Keyring
	Directory *gateway.Directory
	People    *people.Book
	Logger    *slog.Logger
	Outside   string // the public name, s3.<domain>; names below it are those of VMs and their buckets
	Quota     int64  // bytes that a VM may store by default; 0: no limit
	AccessLog bool   // log every request
	Domain    string // of the VMs' names

	// Dial connects to a port of a VM, to deliver events; nil: by its tap.
	Dial func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error)

	// Logins knows the people at the names of buckets. Without it there are none.
	Logins Logins

	eventTimes events.Times // of tests; zero: the daemon's
}

// Server is the S3 service of one host.
type Server struct {
	keyring   *gateway.Keyring
	directory *gateway.Directory
	people    *people.Book
	log       *slog.Logger
	accessLog bool
	objects   *store.Store
	protocol  *s3.Handler
	admission *admission
	grantees  *grantees
	events    *events.Deliverer
	checking  sync.Mutex    // held by Damage
	scans     chan struct{} // has those under way, see UsageBelow

	logins      Logins
	outsideHost string
	requests    *prometheus.CounterVec // by method and status
}

// New opens the objects in cfg.Dir and finishes what a crash interrupted there.
func New(cfg Config) (*Server, error) {
	if cfg.Dir == "" || cfg.Keyring == nil || cfg.Directory == nil || cfg.People == nil || cfg.Logger == nil {
		return nil, errors.New("open storage: the configuration is incomplete")
	}
	rules, queued := new(s3.Events), new(wakeLater)
	objects, err := store.Open(filepath.Clean(cfg.Dir), store.Config{Log: cfg.Logger, Limits: cfg.limits, Rule: rules.Rule, Queued: queued.wake})
	if err != nil {
		return nil, err
	}
	key, err := sealKey(filepath.Join(cfg.Dir, "seal.key"), objects)
	if err != nil {
		return nil, errors.Join(err, objects.Close())
	}
	s := &Server{
		keyring: cfg.Keyring, directory: cfg.Directory, people: cfg.People, outsideHost: cfg.Outside, logins: cfg.Logins, log: cfg.Logger, accessLog: cfg.AccessLog,
		objects: objects, protocol: &s3.Handler{Store: objects, Logger: cfg.Logger, Now: time.Now, SealKey: key},
		admission: newAdmission(cfg.Directory), scans: make(chan struct{}, maxScans), requests: newRequestCounter(), grantees: newGrantees(),
	}
	s.directory.Watch(s.grantees.changed)
	s.events = cfg.deliverer(objects, rules)
	queued.to.Store(s.events)
	return s, nil
}

// Run does the store's work in the background until ctx is done. Then it ends all requests, and closes
// the store. If the store fails, it returns that error at once: requests may be blocked for ever.
func (s *Server) Run(ctx context.Context) error {
	var others sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	others.Go(func() { s.expire(ctx) })
	others.Go(func() {
		if err := s.events.Run(ctx); err != nil {
			s.log.Error("events of buckets not read", "err", err)
		}
	})
	err := s.objects.Run(ctx)
	cancel()
	err = cmp.Or(err, s.objects.UnlessFailed(func() error {
		s.admission.close()
		others.Wait()
		return nil
	}))
	return cmp.Or(err, s.objects.Close())
}

// Remove ends the requests of a VM, whose record is marked as removed, and removes its objects. It
// can be repeated after a crash.
func (s *Server) Remove(ctx context.Context, id gateway.ID) error {
	if err := s.admission.end(ctx, id); err != nil {
		return err
	}
	return s.objects.UnlessFailed(func() error { return s.objects.Remove(id) })
}

// Handler serves S3 on taps, whose connections carry their VM in the request's context
// (gateway.ConnContext).
func (s *Server) Handler() http.Handler { return s.handler(atTap) }

// HostHandler serves S3 on the host's own socket, for issued keys. It has places of its own.
func (s *Server) HostHandler() http.Handler { return s.handler(atHost) }

// OutsideHandler serves S3 at the public names, to who has a key for them or a presigned URL. The caller
// has ended TLS, and limits strangers.
func (s *Server) OutsideHandler() http.Handler { return s.handler(atOutside) }

func (s *Server) handler(at door) http.Handler {
	return continueEmpty(promhttp.InstrumentHandlerCounter(s.requests, s.serving(at)))
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
