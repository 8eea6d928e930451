// Package post makes single POST requests to web servers in guests.
//
// The server may be hostile: it may hang, trickle, redirect, switch protocols, or answer without
// end. A request ends all the same, in the time that it has, and little of an answer is read. Each
// request has a connection of its own. No redirect is followed.
package post

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	maxHeaderBytes = 64 << 10 // of an answer
	maxReasonBytes = 200      // of an answer's body that are read
)

// ErrSlow ends a request whose server has used up its time.
var ErrSlow = errors.New("the server is too slow")

// StatusError is an answer other than 2xx.
type StatusError struct {
	Code   int
	Reason string // the status line's text and the beginning of the body, as the guest has sent them
}

func (e *StatusError) Error() string { return "HTTP " + e.Reason }

// Request is what is sent. Body is not read any more once Do has returned.
type Request struct {
	URL    string
	Header http.Header
	Body   io.Reader
	Bytes  int64 // of Body
}

// Client makes one request at a time. The zero value of no field is usable.
type Client struct {
	Dial func(context.Context) (net.Conn, error) // to the server, whatever the URL names
	Step time.Duration                           // that the server may take for each read of Body, and to answer

	raw atomic.Pointer[net.Conn] // of the last request
}

// Do posts a request, and returns nil for a 2xx answer, and a *StatusError for any other. An error
// of Dial is wrapped.
func (c *Client) Do(ctx context.Context, what Request) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, c.Close) // the client itself ignores ctx after 101 (Switching Protocols)
	timer := time.AfterFunc(c.Step, func() { cancel(ErrSlow) })
	defer timer.Stop()
	body := NewBody(timed{what.Body, timer, c.Step})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, what.URL, body)
	if err != nil {
		return err
	}
	request.ContentLength, request.Header = what.Bytes, what.Header
	answer, err := c.client().Do(request)
	if err == nil {
		err = judge(answer)
		_ = answer.Body.Close() // the rest is of no interest
	} else if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	stop()
	c.Close()
	cancel(nil)
	_ = body.Close() // the client may go on to read the body, or never begin to
	return err
}

// Close closes the connection, if a request is in progress.
func (c *Client) Close() {
	if conn := c.raw.Load(); conn != nil {
		_ = (*conn).Close() // what is in progress fails
	}
}

func (c *Client) client() *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.Dial(ctx)
		if err != nil {
			return nil, err
		}
		c.raw.Store(&conn)
		return conn, nil
	}
	return &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// judge reads a status, and of an error the beginning of the body.
func judge(answer *http.Response) error {
	if answer.StatusCode/100 == 2 {
		return nil
	}
	e := &StatusError{answer.StatusCode, answer.Status}
	if answer.StatusCode/100 != 1 { // after 101 there is no body
		reason, _ := io.ReadAll(io.LimitReader(answer.Body, maxReasonBytes)) // what there is
		e.Reason = fmt.Sprintf("%s: %s", answer.Status, reason)
	}
	return e
}

// timed is a reader. Each read gives the server more time.
type timed struct {
	io.Reader
	timer *time.Timer
	step  time.Duration
}

// Read implements io.Reader.
func (t timed) Read(p []byte) (int, error) {
	t.timer.Reset(t.step)
	return t.Reader.Read(p)
}
