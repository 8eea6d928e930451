package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// checkpointsPath is where a VM makes checkpoints of itself.
const checkpointsPath = "/lodge/v1/checkpoints"

// rollbackLimit is how long it may take to prepare a rollback.
const rollbackLimit = time.Minute

// maxCheckpointBody limits the body of a request for a checkpoint.
const maxCheckpointBody = 4 << 10

// Checkpoints are the verbs of a VM on its own checkpoints; api.Session, as the VM, has them.
type Checkpoints interface {
	Checkpoint(ctx context.Context, name string, r gateway.CheckpointRequest) (api.Checkpoint, error)
	CheckpointList(ctx context.Context, name string) ([]api.Checkpoint, error)
	RemoveCheckpoint(ctx context.Context, name, which string) error
	Rollback(ctx context.Context, name, checkpoint string) (api.Checkpoint, error)
}

// checkpoints answers at checkpointsPath and below:
//
//	GET    /lodge/v1/checkpoints                   lists them, the oldest first
//	POST   /lodge/v1/checkpoints                   makes one; the body is a gateway.CheckpointRequest, or empty
//	POST   /lodge/v1/checkpoints/<name>/rollback   goes back to it, if the owner allows it: the VM ends after the answer
//	DELETE /lodge/v1/checkpoints/<name>            removes one that the VM itself made
func (s *Server) checkpoints(w http.ResponseWriter, r *http.Request, m gateway.VM) *refusal {
	if refused := checkHeader(r); refused != nil {
		return refused
	}
	verbs := s.Checkpoints(m.Identity)
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, checkpointsPath), "/")
	name, back := strings.CutSuffix(rest, "/rollback")
	ctx := r.Context()
	var answer any
	var err error
	status := http.StatusOK
	switch {
	case rest == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		answer, err = verbs.CheckpointList(ctx, m.Name)
	case rest == "" && r.Method == http.MethodPost:
		var request gateway.CheckpointRequest
		if request, err = readCheckpoint(w, r); err == nil {
			answer, err = verbs.Checkpoint(ctx, m.Name, request)
		}
		status = http.StatusCreated
	case back && name != "" && r.Method == http.MethodPost:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit) // the guest that asked may end before the answer
		defer cancel()
		answer, err = verbs.Rollback(ctx, m.Name, name)
		status = http.StatusAccepted
	case rest != "" && !back && r.Method == http.MethodDelete:
		err = verbs.RemoveCheckpoint(ctx, m.Name, rest)
		answer = map[string]string{"removed": rest}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST, DELETE")
		return refuse(http.StatusMethodNotAllowed, "Only GET and POST of %[1]s, POST of %[1]s/NAME/rollback and DELETE of %[1]s/NAME are possible.", checkpointsPath)
	}
	if err != nil {
		return refuseVerb(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a write error means that the guest has closed the connection
	return nil
}

// readCheckpoint reads the body of a request, which may be empty.
func readCheckpoint(w http.ResponseWriter, r *http.Request) (request gateway.CheckpointRequest, err error) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCheckpointBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&request); err != nil && !errors.Is(err, io.EOF) {
		return request, gateway.Invalid("the body is not a request for a checkpoint: %v", err).WithHint(`An example: {"name": "before-upgrade"}`)
	}
	return request, nil
}

// refuseVerb is the one table from kinds of errors of verbs to statuses.
func refuseVerb(err error) *refusal {
	status, ok := map[gateway.Kind]int{
		gateway.KindInvalid: http.StatusBadRequest, gateway.KindNotFound: http.StatusNotFound, gateway.KindTaken: http.StatusConflict,
		gateway.KindConflict: http.StatusConflict, gateway.KindDenied: http.StatusForbidden, gateway.KindNoSpace: http.StatusInsufficientStorage,
		gateway.KindUnavailable: http.StatusServiceUnavailable,
	}[gateway.KindOf(err)]
	known, isKnown := errors.AsType[*gateway.Error](err)
	if !ok || !isKnown {
		return refuse(http.StatusInternalServerError, "Internal error. The host's log has the reason.")
	}
	if known.Kind == gateway.KindDenied {
		return refuse(status, "Not allowed from inside the VM. For a rollback, the owner allows it: lodge set NAME --rollback-inside")
	}
	return refuse(status, "%s. %s", known.Msg, known.Hint)
}
