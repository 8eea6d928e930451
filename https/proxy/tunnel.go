package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 has it; it protects nothing
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"lodge/https/access"
)

// websocketGUID is part of what proves that a server speaks WebSocket (RFC 6455 §1.3).
const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// tunnel passes a WebSocket of HTTP/2 on (RFC 8441): the app gets an upgrade of HTTP/1.1. After an
// error, nothing was sent.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, to Target, who access.Visitor) error {
	out, accept := upgrade(r, to, who)
	res, err := p.plain.RoundTrip(out)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was read, or is cut off
	if res.StatusCode != http.StatusSwitchingProtocols {
		return p.notUpgraded(w, res)
	}
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") || res.Header.Get("Sec-Websocket-Accept") != accept {
		return errors.New("the app did not accept the WebSocket")
	}
	removeHopByHop(res.Header)
	delete(res.Header, "Sec-Websocket-Accept")
	p.modify(res)
	copyHeader(w.Header(), res.Header)
	w.WriteHeader(http.StatusOK)
	if err := p.join(w, r, app); err != nil || r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // resets the stream, as TCP is reset (RFC 8441 §5)
	}
	return nil
}

// upgrade returns the request of HTTP/1.1 for the app, and what a server answers to its key.
func upgrade(r *http.Request, to Target, who access.Visitor) (out *http.Request, accept string) {
	in := r.WithContext(withTarget(r.Context(), to))
	in.Body, in.ContentLength = http.NoBody, 0
	out, _ = outgoing(in)
	delete(out.Header, ":protocol")
	out.Method, out.URL = http.MethodGet, new(url.URL)
	*out.URL = *r.URL
	out.URL.Scheme, out.URL.Host = "http", to.key()
	rewrite(&httputil.ProxyRequest{In: in, Out: out}, who)
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // crypto/rand.Read never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Key": key} {
		out.Header[name] = []string{value}
	}
	sum := sha1.Sum([]byte(key + websocketGUID)) //nolint:gosec // as above
	return out, base64.StdEncoding.EncodeToString(sum[:])
}

// notUpgraded passes on an app's refusal. A status of 2xx would open the tunnel.
func (p *Proxy) notUpgraded(w http.ResponseWriter, res *http.Response) error {
	if res.StatusCode < http.StatusMultipleChoices {
		return fmt.Errorf("the app answered %s, not an upgrade", res.Status)
	}
	removeHopByHop(res.Header)
	p.modify(res)
	copyHeader(w.Header(), res.Header)
	w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(w, res.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// join copies both ways until the app has ended its half, or the context of r ends.
func (p *Proxy) join(w http.ResponseWriter, r *http.Request, app io.ReadWriteCloser) error {
	control := http.NewResponseController(w)
	ended := make(chan struct{})
	stop := context.AfterFunc(r.Context(), func() {
		defer close(ended)
		_ = app.Close()                                            // the other copies see it
		_ = control.SetWriteDeadline(time.Now().Add(-time.Second)) // the client may not be reading
	})
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := p.send(app, r.Body); err != nil {
			_ = app.Close() // as above
		}
	})
	err := p.receive(w, control, app)
	_ = app.Close()    // nothing more is sent to it
	_ = r.Body.Close() // ends send, which waits for the client
	sending.Wait()
	if !stop() {
		<-ended // the controller must not outlive the request
	}
	return err
}

// send copies what the client sends. Its end is passed on as a half-close.
func (p *Proxy) send(app io.Writer, from io.Reader) error {
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	if _, err := io.CopyBuffer(app, from, buf); err != nil {
		return err
	}
	if half, ok := app.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// receive copies what the app sends, and holds nothing back.
func (p *Proxy) receive(w io.Writer, control *http.ResponseController, app io.Reader) error {
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	for {
		if err := control.Flush(); err != nil {
			return err
		}
		n, err := app.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
