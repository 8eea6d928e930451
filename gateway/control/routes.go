package control

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// A verb answers one request, or returns the error to answer with.
type verb func(w http.ResponseWriter, r *http.Request) error

// route is a verb with what docs/api.md needs of it.
type route struct {
	method, path string
	verb         verb
	in, out      any    // values of the types of the body and of the answer; nil: none
	doc          string // what the verb does, and its query parameters
}

// stream is an answer of Events, and media one of bytes of that type.
type (
	stream struct{ result any }
	media  string
)

// routes is the API, one route per verb. docs/api.md is made from it.
func (s *Server) routes() []route {
	const vm = "/v1/vms/{name}"
	return slices.Concat(s.peopleRoutes(), s.mailRoutes(), s.mailPasswordRoutes(), s.checkpointRoutes(), s.s3Routes(), []route{
		{"GET", "/v1/health", query(s, api.Session.Health), nil, api.Health{}, "Returns the state of the daemon."},
		{"GET", "/metrics", s.metrics, nil, media("text/plain"), "Returns the metrics of the daemon, in Prometheus's text format."},
		{"GET", "/v1/ca.pem", s.rootPEM, nil, media("application/x-pem-file"), "Returns the certificate of the host's own CA."},
		{"GET", "/v1/doctor", query(s, api.Session.Doctor), nil, []api.Finding{}, "Examines what the host needs from outside: DNS records, ports and the certificate."},
		{"GET", "/v1/images", query(s, api.Session.Images), nil, api.ImageList{}, "Lists the base images and the templates."},
		{"POST", "/v1/images", s.buildImage, ImageRequest{}, stream{api.Image{}}, "Builds a base image, in a minute or two. VMs that were made from an older one keep theirs."},
		{"DELETE", "/v1/templates/{id}", s.removeTemplate, nil, nil, "Removes a template. VMs that were resumed from it keep their disks; the next VM of its size has a new one made."},
		{"GET", "/v1/forwards", query(s, api.Session.Forwards), nil, []api.Forward{}, "Lists the forwarded ports, in their order."},
		{"DELETE", "/v1/forwards/{host_port}/{protocol}", s.removeForward, nil, nil, "Closes a forwarded port, and cuts off what is open through it."},
		{"GET", "/v1/vms", query(s, api.Session.List), nil, []api.VM{}, "Lists the VMs, ordered by name."},
		{"POST", "/v1/vms", s.create, gateway.Spec{}, stream{api.VM{}}, "Makes a VM and starts it. When the request is cancelled, nothing of the VM is left."},
		{"GET", vm, named(s, api.Session.Show), nil, api.VM{}, "Shows one VM. A VM may ask this of itself."},
		{"PATCH", vm, asked(s, api.Session.Set), api.Settings{}, api.VM{}, "Changes settings of a VM."},
		{"DELETE", vm, s.remove, nil, nil, "Deletes a VM with its disk, its mail and its objects."},
		{"POST", vm + "/start", named(s, api.Session.Start), nil, api.VM{}, "Starts a VM."},
		{"POST", vm + "/stop", asked(s, stop), StopRequest{}, api.VM{}, "Stops a VM."},
		{"POST", vm + "/restart", named(s, api.Session.Restart), nil, api.VM{}, "Stops a VM and starts it."},
		{"GET", vm + "/wait", s.wait, nil, stream{api.VM{}}, "Waits for a condition. `for=ssh` (the default): the guest's sshd answers; `for=http`: and something answers at the VM's URL."},
		{"GET", vm + "/console", s.console, nil, media(consoleProtocol), "Upgrades the connection (`Connection: Upgrade`, `Upgrade: " + consoleProtocol + "`) to the serial console: raw bytes both ways."},
		{"GET", vm + "/log", s.log, nil, media("text/plain"), "Returns the output of the serial console; with `follow=true` it continues."},
		{"GET", vm + "/ssh", named(s, api.Session.SSH), nil, gateway.SSHAccess{}, "Returns what a log-in to the VM needs."},
		{"GET", vm + "/changes", s.changes, nil, gateway.Changes{}, "Returns what was changed in the VM since its image or the checkpoint `from`, until now or the checkpoint `to`; with `text=true` also a unified diff of text files."},
		{"GET", vm + "/history", s.history, nil, []gateway.HistoryStep{}, "Returns what was changed from checkpoint to checkpoint, and from the last to now: the `last` steps, 10 unless asked."},
		{"GET", vm + "/recipe", s.recipe, nil, gateway.Recipe{}, "Returns cloud-init user data that makes the same changes to a new VM. Files that may hold secrets, and large ones, are left out and listed. With `objects=true`, large files are listed as `objects`, and the user data has `lodge-object:SHA256` in place of a URL of each."},
		{"GET", vm + "/recipe/file", s.recipeFile, nil, media("application/octet-stream"), "Returns the content of one of a recipe's `objects`, which `path`, `bytes` and `sha256` name. If it has changed since, the answer is incomplete."},
		{"PUT", vm + "/buckets/{bucket}", s.shareBucket, PortRequest{}, api.VM{}, "Sets who may list and read a bucket of S3 at its name outside. The answer has the URL of the bucket."},
		{"PUT", vm + "/ports/{port}", s.share, PortRequest{}, api.VM{}, "Sets who may open a port. Port 0 is the one that the VM's own name leads to. The answer has the URL of the port."},
		{"POST", vm + "/forwards", asked(s, forward), ForwardRequest{}, api.Forward{}, "Opens a port of the host that leads to a port of the VM. It is kept over restarts, and removed with the VM."},
		{"PUT", vm + "/domains/{domain}", s.addDomain, DomainRequest{}, api.Domain{}, "Makes a custom domain lead to a port of the VM, once DNS proves that it belongs to the VM. Without a proof the error is of kind conflict, and its hint has the records to set."},
		{"GET", "/v1/domains", s.domains, nil, []api.Domain{}, "Lists the custom domains; with `vm`, those of one VM."},
		{"DELETE", "/v1/domains/{domain}", s.removeDomain, nil, nil, "Removes a custom domain from its VM."},
		{"POST", vm + "/login", asked(s, login), LoginRequest{}, LoginAnswer{}, "Makes a link that logs a person in to the VM's pages, once."},
		{"POST", "/v1/login", asked(s, loginHost), LoginRequest{}, LoginAnswer{}, "Makes a link that logs a person in at the host's own domain, for all pages that the person may open, once."},
		{"GET", vm + "/mail", s.mail, nil, []gateway.Message{}, "Lists the VM's messages, the newest first; at most `limit`, 1 to 10000, 100 by default."},
		{"GET", vm + "/mail/{queue_id}", s.message, nil, media("message/rfc822"), "Returns one message as it is stored."},
	})
}

// Handler answers every verb, for the caller that the request's context carries (WithCaller).
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, route := range s.routes() {
		mux.Handle(route.method+" "+route.path, s.logged(route.verb))
		allowed[route.path] = append(allowed[route.path], route.method)
	}
	for path, methods := range allowed {
		mux.Handle(path, s.logged(wrongMethod(methods)))
	}
	mux.Handle("/", s.logged(func(http.ResponseWriter, *http.Request) error {
		return gateway.Errorf(gateway.KindNotFound, "no such verb").WithHint("lodge and lodged may be of different versions: lodge version")
	}))
	return mux
}

func wrongMethod(methods []string) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		answer(w, http.StatusMethodNotAllowed, gateway.Invalid("%s is not possible here, only %s", r.Method, strings.Join(methods, " and ")))
		return nil
	}
}

// status is the one table from kinds of errors to HTTP statuses (RFC 9110 §15).
func status(kind gateway.Kind) int {
	switch kind {
	case gateway.KindInvalid:
		return http.StatusBadRequest
	case gateway.KindNotFound:
		return http.StatusNotFound
	case gateway.KindTaken, gateway.KindConflict:
		return http.StatusConflict
	case gateway.KindDenied:
		return http.StatusForbidden
	case gateway.KindNoSpace:
		return http.StatusInsufficientStorage
	case gateway.KindUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// logged runs a verb, answers with its error, and writes the one log line of the request. Paths are logged by their
// pattern, answers not at all: they hold links and keys.
func (s *Server) logged(v verb) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w}
		err := v(rec, r)
		cut := err != nil && rec.status != 0 && !rec.sentError
		if err != nil && rec.status == 0 {
			answer(rec, status(api.ErrorOf(err).Kind), api.ErrorOf(err))
		}
		args := []any{"method", cmp.Or(r.Pattern, r.Method), "status", rec.status, "bytes", rec.bytes, "duration", time.Since(began)}
		if name := r.PathValue("name"); name != "" {
			args = append(args, "vm", name)
		}
		if err != nil {
			args = append(args, "err", withCause(err))
		}
		s.Logger.InfoContext(r.Context(), "control request served", args...)
		if cut {
			panic(http.ErrAbortHandler) // the answer had begun: only closing the connection shows that it is incomplete
		}
	})
}

// withCause is err with its cause, for the log: an error that callers see has none.
func withCause(err error) error {
	if e, ok := errors.AsType[*gateway.Error](err); ok && e.Err != nil {
		return fmt.Errorf("%w: %w", err, e.Err)
	}
	return err
}
