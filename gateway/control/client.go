package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"lodge/gateway"
)

// ErrNotRunning is the cause of the error that every call gives when no process answers on the socket.
var ErrNotRunning = errors.New("lodged is not running")

// Client is a client of a Server. Its errors are *gateway.Error as the Server made them, or context errors. It is safe for
// concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the daemon at a unix socket. It does not connect yet.
func NewClient(socket string) *Client {
	dialer := &net.Dialer{}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// vmPath is the path of a verb of a VM, or of the operator's mail. Names are checked here, since "..", "" and the like
// would make another path.
func vmPath(name, verb string) (string, error) {
	if err := gateway.CheckName(name); err != nil && name != gateway.Postmaster().Name {
		return "", err
	}
	return "/v1/vms/" + name + verb, nil
}

// onVM calls a verb of a VM with in as its body, and reads the answer into out; both may be nil.
func (c *Client) onVM(ctx context.Context, method, name, verb string, in, out any) error {
	path, err := vmPath(name, verb)
	if err != nil {
		return err
	}
	return c.call(ctx, method, path, in, out)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return garbled(ctx, err)
	}
	return nil
}

// send makes one request. The caller closes the Body of an answer; answers that are errors come back as errors.
func (c *Client) send(ctx context.Context, method, path string, in any, header http.Header) (*http.Response, error) {
	body := &bytes.Buffer{}
	if in != nil {
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://lodged"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(req.Header, header)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close() //nolint:errcheck // it was only read
		return nil, readError(resp)
	}
	return resp, nil
}

func readError(resp *http.Response) error {
	e := &gateway.Error{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(e); err != nil || e.Kind == "" {
		return gateway.Errorf(gateway.KindInternal, "lodged answered %s", resp.Status).Because(err)
	}
	return e
}

// explain makes the error for a request that got no answer.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return gateway.Errorf(gateway.KindUnavailable, "lodged is not running (no answer on %s)", c.socket).
			Because(fmt.Errorf("%w: %w", ErrNotRunning, err)).
			WithHint("Start it: systemctl start lodged, or make up in Lodge's source directory.")
	case errors.Is(err, fs.ErrPermission):
		return gateway.Errorf(gateway.KindDenied, "only root and the members of group %s may use lodged", Group).Because(err).
			WithHint("%s", howToJoin())
	default:
		return garbled(ctx, err)
	}
}

// howToJoin is the way of a person into Group.
func howToJoin() string {
	if gid, err := groupID(Group); err == nil && gid == noGroup {
		return "Use sudo. For a group that may use lodged: sudo groupadd --system " + Group + ", then restart lodged and join it."
	}
	return "Use sudo, or join the group and log in again: sudo usermod -aG " + Group + " $USER"
}

// garbled is the error for an answer that was cut off or is not understood.
func garbled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err // its text repeats the request
	}
	return gateway.Errorf(gateway.KindUnavailable, "connection to lodged lost: %v", err).Because(err).
		WithHint("lodged may have been restarted; try again, and see its log: journalctl -u lodged")
}
