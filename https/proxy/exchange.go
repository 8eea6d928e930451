package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"

	"lodge/https/access"
	"lodge/https/conns"
)

// max1xx is how many informational responses may precede the final one.
const max1xx = 5

// isPlain reports whether exchange can pass r on. Upgrades, HTTP/2 to the app, and requests whose
// body waits for an answer need the connection for longer, or in another way.
func isPlain(r *http.Request) bool {
	return r.Method != http.MethodConnect && len(r.Header["Upgrade"]) == 0 && len(r.Header["Expect"]) == 0 && !conns.IsGRPC(r.Header.Get("Content-Type"))
}

// exchange sends r to a port of a VM and its response to w, as ReverseProxy does, with less CPU
// time: it uses the connection in the handler's own goroutine. net/http writes and reads all
// messages. After an error, nothing was sent but 1xx responses.
func (p *Proxy) exchange(w http.ResponseWriter, r *http.Request, to Target, who access.Visitor) error {
	out, up := outgoing(r)
	rewrite(&httputil.ProxyRequest{In: r, Out: out}, who)
	l, err := p.lines.take(r.Context(), to)
	if err != nil {
		return err
	}
	complete := false
	defer func() { // also when answer panics
		up.stop()
		l.end(complete)
	}()
	res, err := l.roundTrip(w, out, up)
	if err != nil && l.mayRetry(out) {
		second, dialErr := p.lines.dial(r.Context(), to)
		if dialErr != nil {
			return dialErr
		}
		l.end(false)
		l = second
		res, err = l.roundTrip(w, out, up)
	}
	if err != nil {
		return err
	}
	p.answer(w, res, l)
	complete = !res.Close && up.finished()
	return nil
}

// outgoing returns the request for the VM as ReverseProxy passes it to its Rewrite, and the body's
// upload, which is nil without a body.
func outgoing(r *http.Request) (*http.Request, *upload) {
	out := r.WithContext(r.Context())
	out.Close = false
	out.Header = r.Header.Clone()
	out.Trailer = maps.Clone(r.Trailer)
	out.TransferEncoding = nil // from ContentLength
	removeHopByHop(out.Header)
	if slices.ContainsFunc(tokens(r.Header["Te"]), func(t string) bool { return strings.EqualFold(t, "trailers") }) {
		out.Header.Set("Te", "trailers")
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // net/http adds none of its own
	}
	if r.ContentLength == 0 || r.Body == nil {
		out.Body = nil
		return out, nil
	}
	up := newUpload(r.Body)
	out.Body = up
	return out, up
}

// removeHopByHop removes what concerns one connection (RFC 9110 §7.6.1), and the fields that
// proxies have always removed.
func removeHopByHop(h http.Header) {
	for _, name := range tokens(h["Connection"]) {
		h.Del(name)
	}
	for _, name := range [...]string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	} {
		delete(h, name)
	}
}

// tokens are the elements of a header's lists.
func tokens(lines []string) (all []string) {
	for _, line := range lines {
		for token := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(token))
		}
	}
	return all
}

// roundTrip sends out and reads the header of the response. It passes 1xx responses on to w.
func (l *line) roundTrip(w http.ResponseWriter, out *http.Request, up *upload) (*http.Response, error) {
	l.begin(out.Context())
	if up != nil {
		up.start(l, out)
	} else if err := l.send(out); err != nil && !isClosing(err) {
		return nil, fmt.Errorf("send the request: %w", err)
	}
	for range max1xx + 1 {
		res, err := l.readHeader(out)
		switch {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("read the response: %w", err), up.failure())
		case res.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("read the response: the app switched protocols without a request to do so")
		case res.StatusCode >= http.StatusOK:
			return res, nil
		case res.StatusCode != http.StatusContinue: // net/http has sent that, if the client expects it
			kept := maps.Clone(w.Header())
			delete(res.Header, "Set-Cookie") // modify, which narrows them, sees the last response alone
			copyHeader(w.Header(), res.Header)
			w.WriteHeader(res.StatusCode)
			clear(w.Header())
			maps.Copy(w.Header(), kept)
		}
	}
	return nil, fmt.Errorf("read the response: more than %d informational ones", max1xx)
}

// answer sends res to the client. It panics with http.ErrAbortHandler where the response cannot be
// completed, so that the client does not take it for complete.
func (p *Proxy) answer(w http.ResponseWriter, res *http.Response, l *line) {
	removeHopByHop(res.Header)
	p.modify(res)
	h := w.Header()
	copyHeader(h, res.Header)
	announced := len(res.Trailer)
	if announced > 0 {
		h.Add("Trailer", strings.Join(slices.Sorted(maps.Keys(res.Trailer)), ", "))
	}
	w.WriteHeader(res.StatusCode)
	if res.Body == http.NoBody {
		return
	}
	if err := p.copyBody(w, res, l); err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(res.Trailer) == 0 {
		return
	}
	_ = http.NewResponseController(w).Flush() // a response with trailers is chunked; the next write shows an error
	for name, values := range res.Trailer {
		if len(res.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		h[name] = append(h[name], values...)
	}
}

// copyBody copies the body of res, and flushes what may not be followed at once by more: a slow
// answer is not held back. Where the length is unknown, the header does not wait for the body.
func (p *Proxy) copyBody(w http.ResponseWriter, res *http.Response, l *line) error {
	control, left := http.NewResponseController(w), res.ContentLength
	if left < 0 && l.in.Buffered() == 0 {
		if err := control.Flush(); err != nil {
			return err
		}
	}
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	for {
		n, readErr := res.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch left -= int64(n); {
		case errors.Is(readErr, io.EOF):
			return nil
		case readErr != nil:
			return errors.Join(readErr, control.Flush()) // what has arrived
		case left != 0:
			if err := control.Flush(); err != nil {
				return err
			}
		}
	}
}

// copyHeader adds src to dst.
func copyHeader(dst, src http.Header) {
	for name, values := range src {
		if len(dst[name]) > 0 {
			values = append(dst[name], values...)
		}
		dst[name] = values
	}
}

// mayRetry reports whether a failed request can go to the app on another connection without being
// carried out twice: the app closed a connection that it had kept open, and sent nothing. Methods
// that are not idempotent are never sent again (RFC 9110 §9.2.2).
func (l *line) mayRetry(out *http.Request) bool {
	if !l.reused || l.answered || out.Body != nil || out.Context().Err() != nil {
		return false
	}
	switch out.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
