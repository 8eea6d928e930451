package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
)

const (
	maxHeaderBytes = 64 << 10 // of an answer
	maxReasonBytes = 200      // of an answer's body that are read
)

// httpRoute is a Route into a web server of the VM: each message is one POST on a connection of its own,
// of message/rfc822, byte for byte as the host has it. These headers have the rest:
//
//	X-Lodge-Queue-Id    the message's name, the same at each attempt
//	X-Lodge-Mail-From   the envelope's sender, empty for a bounce
//	X-Lodge-Mail-To     the envelope's recipient
//	Idempotency-Key     the queue id in quotes
//
// Visitors of the VM's pages cannot send X-Lodge-* (see https). A 2xx answer makes a message delivered,
// 4xx but 408 and 429 refused; all else waits. No redirect is followed. When the connection or the host
// breaks before the answer is recorded, the message comes again, with the same queue id.
type httpRoute struct {
	client *http.Client
	url    string
	step   time.Duration
	raw    atomic.Pointer[net.Conn] // of the last request
}

// openHTTP makes no connection yet.
func openHTTP(config Config, m gateway.VM, to gateway.MailRoute) *httpRoute {
	h := &httpRoute{url: fmt.Sprintf("http://%s.%s:%d%s", m.Name, config.Domain, to.Port, to.Path), step: config.Times.Step}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, config.Times.Connect)
		defer cancel()
		c, err := config.Dial(ctx, m, to.Port)
		if err != nil {
			return nil, at(stageConnect, fmt.Errorf("dial: %w", err))
		}
		h.raw.Store(&c)
		return c, nil
	}
	h.client = &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h
}

// Deliver posts a message. The server may take Times.Step for each 32 KiB, and as long to answer.
func (h *httpRoute) Deliver(ctx context.Context, m Message) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, h.Close) // the client itself ignores ctx after 101 (Switching Protocols)
	timer := time.AfterFunc(h.step, func() { cancel(errSlow) })
	defer timer.Stop()
	body := &sentBody{Reader: &ticking{Reader: m.Content, timer: timer, step: h.step}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, body)
	if err != nil {
		return at(stageWrite, err) // a route that was checked makes none
	}
	request.ContentLength = m.Bytes
	request.Header = http.Header{
		"Content-Type": {"message/rfc822"}, "User-Agent": {"lodged"}, "Idempotency-Key": {`"` + m.QueueID + `"`},
		"X-Lodge-Queue-Id": {m.QueueID}, "X-Lodge-Mail-From": {m.From}, "X-Lodge-Mail-To": {m.Rcpt},
	}
	answer, err := h.client.Do(request)
	if err == nil {
		err = judgeAnswer(answer)
		_ = answer.Body.Close() // the rest is of no interest
	} else if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	stop()
	h.Close()
	cancel(nil)
	_ = body.Close() // the client may go on to read the message, or never begin to
	if isConnect(err) || isRefusal(err) {
		return err
	}
	return at(stageWrite, err)
}

// Close closes the connection, if a request is in progress.
func (h *httpRoute) Close() {
	if c := h.raw.Load(); c != nil {
		_ = (*c).Close() // what is in progress fails
	}
}

var errSlow = errors.New("the server is too slow")

// judgeAnswer reads a status, and of an error the beginning of the body.
func judgeAnswer(answer *http.Response) error {
	if answer.StatusCode/100 == 2 {
		return nil
	}
	if answer.StatusCode/100 == 1 {
		return fmt.Errorf("HTTP %s", answer.Status)
	}
	reason, _ := io.ReadAll(io.LimitReader(answer.Body, maxReasonBytes)) // what there is
	err := fmt.Errorf("HTTP %s: %s", answer.Status, reason)
	again := answer.StatusCode == http.StatusRequestTimeout || answer.StatusCode == http.StatusTooManyRequests
	if answer.StatusCode/100 == 4 && !again {
		return &Refusal{at(stageWrite, err)}
	}
	return err
}

// sentBody is a body that nobody reads any more once Close has returned.
type sentBody struct {
	mu sync.Mutex
	io.Reader
	ended bool
}

// Read implements io.Reader.
func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errors.New("the request is over")
	}
	return b.Reader.Read(p)
}

// Close waits for a Read in progress, and ends the reading.
func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	return nil
}
