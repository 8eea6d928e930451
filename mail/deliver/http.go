package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"lodge/gateway"
	"lodge/gateway/post"
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
	post.Client
	url string
}

// openHTTP makes no connection yet.
func openHTTP(config Config, m gateway.VM, to gateway.MailRoute) *httpRoute {
	dial := func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, config.Times.Connect)
		defer cancel()
		c, err := config.Dial(ctx, m, to.Port)
		if err != nil {
			return nil, at(stageConnect, fmt.Errorf("dial: %w", err))
		}
		return c, nil
	}
	return &httpRoute{
		Client: post.Client{Dial: dial, Step: config.Times.Step},
		url:    fmt.Sprintf("http://%s.%s:%d%s", m.Name, config.Domain, to.Port, to.Path),
	}
}

// Deliver posts a message. The server may take Times.Step for each 32 KiB, and as long to answer.
func (h *httpRoute) Deliver(ctx context.Context, m Message) error {
	err := h.Do(ctx, post.Request{URL: h.url, Body: m.Content, Bytes: m.Bytes, Header: http.Header{
		"Content-Type": {"message/rfc822"}, "User-Agent": {"lodged"}, "Idempotency-Key": {`"` + m.QueueID + `"`},
		"X-Lodge-Queue-Id": {m.QueueID}, "X-Lodge-Mail-From": {m.From}, "X-Lodge-Mail-To": {m.Rcpt},
	}})
	if isConnect(err) {
		return err
	}
	answer, is := errors.AsType[*post.StatusError](err)
	if err = at(stageWrite, err); !is {
		return err
	}
	again := answer.Code == http.StatusRequestTimeout || answer.Code == http.StatusTooManyRequests
	if answer.Code/100 == 4 && !again {
		return &Refusal{err}
	}
	return err
}
