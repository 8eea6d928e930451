// Package metadata answers guests at http://169.254.169.254. It serves EC2's instance metadata in
// its second version (IMDSv2), where AWS SDKs look for credentials by default; /lodge/v1/self, the
// VM's record in JSON; /lodge/v1/token, a signed token by which the VM proves itself elsewhere;
// /lodge/v1/mail, where it sends mail and reads its own (package mail); and /lodge/v1/checkpoints, where
// it makes checkpoints of itself.
//
// A request passes three checks: it came in on a tap (gateway.VMFrom), has no header of a proxy,
// and names this service as Host. Then it needs what a program that was tricked into fetching a URL
// cannot send: a token from a PUT (EC2's paths), or the header Lodge-Request (below /lodge/v1).
//
// It changes nothing itself (packages mail and api do), never shows one VM to another, and never answers a caller that did not
// come in on a tap.
package metadata

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/issuer"
)

// Config is what a Server needs. Every field but Mail and Checkpoints is required.
type Config struct {
	Directory *gateway.Directory
	Keyring   *gateway.Keyring
	Issuer    *issuer.Issuer
	Domain    string                                 // below which VMs have their names
	URL       func(m gateway.VM, port uint16) string // a VM's page, from outside
	Mail      http.Handler                           // of mailPath and below, after all checks; nil: there is none

	Checkpoints func(vm gateway.Identity) Checkpoints // as that VM; nil: there are none
	Logger      *slog.Logger
}

// mailPath is where a VM posts the mail that it sends; its own is there and below.
const mailPath = "/lodge/v1/mail"

// Server serves metadata. It stores nothing: tokens are invalid after a restart, and SDKs fetch new
// ones.
type Server struct {
	Config
	key [32]byte // signs tokens
	now func() time.Time
}

// New returns a Server.
func New(config Config) *Server {
	s := &Server{Config: config, now: time.Now}
	_, _ = rand.Read(s.key[:]) // crypto/rand.Read never fails
	return s
}

// A refusal is an error as an HTTP status and a sentence for the person who reads curl's output.
type refusal struct {
	status int
	text   string
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// Handler answers requests whose context carries their VM (gateway.ConnContext). The http.Server
// around it limits headers; bodies are read by Config.Mail and for a checkpoint alone.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		vm := gateway.VMFrom(r.Context())
		status := http.StatusOK
		if refused := s.serve(w, r, vm); refused != nil {
			status = refused.status
			http.Error(w, refused.text, refused.status)
		}
		s.Logger.DebugContext(r.Context(), "metadata request served", "vm", vm.Name, "host", clip(r.Host),
			"method", r.Method, "path", clip(r.URL.Path), "status", status, "duration", time.Since(began))
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, vm gateway.Identity) *refusal {
	m, ok := s.Directory.ByID(vm.ID)
	if !vm.Known() || !ok || m.Desired == gateway.Removed {
		return refuse(http.StatusForbidden, "Only VMs of this host can use this, on their own network interface.")
	}
	if refused := checkSource(r); refused != nil {
		return refused
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch path := r.URL.Path; {
	case path == tokenPath:
		return s.giveToken(w, r, m)
	case path == identityPath:
		return s.identity(w, r, m)
	case (path == mailPath || strings.HasPrefix(path, mailPath+"/")) && s.Mail != nil:
		if refused := checkHeader(r); refused != nil {
			return refused
		}
		s.Mail.ServeHTTP(w, r)
		return nil
	case (path == checkpointsPath || strings.HasPrefix(path, checkpointsPath+"/")) && s.Checkpoints != nil:
		return s.checkpoints(w, r, m)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		return refuse(http.StatusMethodNotAllowed, "Only GET and HEAD are allowed, and PUT of %s and %s.", tokenPath, identityPath)
	case path == "/":
		return explain(w, m)
	case path == selfPath:
		return s.self(w, r, m)
	case path == "/latest" || strings.HasPrefix(path, "/latest/"):
		return s.metadata(w, r, m)
	default:
		return refuse(http.StatusNotFound, "Not found. See the list at /.")
	}
}

// checkSource refuses requests that come from a proxy, or from a browser that was misled, instead
// of the guest's own program.
func checkSource(r *http.Request) *refusal {
	for header := range r.Header {
		if header == "Forwarded" || header == "Via" || strings.HasPrefix(header, "X-Forwarded-") {
			return refuse(http.StatusForbidden, "Requests through a proxy (header %s) are refused.", clip(header))
		}
	}
	if !isOwnHost(r.Host) {
		return refuse(http.StatusMisdirectedRequest, "This is the metadata service at http://%s, not %q.",
			gateway.LinkLocal, clip(r.Host))
	}
	return nil
}

// checkHeader refuses requests without the header that web pages and misled programs cannot send.
func checkHeader(r *http.Request) *refusal {
	if r.Header.Get("Lodge-Request") != "1" {
		return refuse(http.StatusForbidden, "Send the header \"Lodge-Request: 1\", which web pages cannot send.")
	}
	return nil
}

// isOwnHost reports whether a Host header names this service, without a port or with port 80.
func isOwnHost(host string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil && port == "80" {
		host = name
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr == gateway.LinkLocal
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "metadata."+gateway.InternalDomain || host == "gateway."+gateway.InternalDomain
}

// clip shortens text from a guest, for logs and answers.
func clip(text string) string {
	const most = 100
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func explain(w http.ResponseWriter, m gateway.VM) *refusal {
	text(w, fmt.Sprintf(`Metadata of %[1]s. The network interface identifies the VM; no key is needed.

The VM's record, in JSON:
  curl -H 'Lodge-Request: 1' http://%[2]s%[3]s

A token (JWT) that proves to another service which VM this is, for that service alone:
  curl -X PUT -H 'Lodge-Request: 1' 'http://%[2]s%[8]s?audience=https://service.example'

A checkpoint of this VM (disk, mail, objects), before something risky; the list of them:
  curl -H 'Lodge-Request: 1' --json '{"name": "before-upgrade"}' http://%[2]s%[10]s
  curl -H 'Lodge-Request: 1' http://%[2]s%[10]s
Back to it, if the VM's owner allows that (the VM ends at once, and starts again):
  curl -X POST -H 'Lodge-Request: 1' http://%[2]s%[10]s/before-upgrade/rollback

EC2's instance metadata (IMDSv2), the source of credentials for AWS SDKs and tools:
  token=$(curl -X PUT -H '%[4]s: 21600' http://%[2]s%[5]s)
  curl -H "%[6]s: $token" http://%[2]s/latest/meta-data/

S3:   http://%[7]s and https://%[7]s
DNS:  %[2]s port 53
NTP:  %[2]s port 123
IMAP: %[2]s port 143, without login
SMTP: %[2]s ports 25 and 587, without login; or by HTTP:
  curl -H 'Lodge-Request: 1' --json '{"to": "ada@example.com", "subject": "Hello", "text": "Hello!"}' http://%[2]s%[9]s
`, m.Name, gateway.LinkLocal, selfPath, ttlHeader, tokenPath, tokenHeader, gateway.S3Host, identityPath, mailPath, checkpointsPath))
	return nil
}

// text writes a plain answer. A write error means that the guest has closed the connection.
func text(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(body))
}
