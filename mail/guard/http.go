package guard

import "bytes"

// isHTTP adds a piece to the first line and judges it. A server acts on no line before its end, so one that comes in
// pieces is caught in time. One that is longer than any mail client's first counts as HTTP: it could be a long URL.
func (g *Conn) isHTTP(piece []byte) bool {
	const enough = 1 << 10
	g.first = append(g.first, piece[:min(len(piece), enough)]...)
	ended := bytes.IndexByte(g.first, '\n') >= 0
	g.checked = ended || len(g.first) >= enough
	found := isHTTP(g.first) || g.checked && !ended
	if g.checked {
		g.first = nil
	}
	return found
}

// isHTTP reports whether a client's first bytes are an HTTP request: forged requests of a browser or a server-side
// fetch carry mail commands behind it (design: identity by tap makes such forgery worth trying).
func isHTTP(first []byte) bool {
	line, _, _ := bytes.Cut(first, []byte("\n"))
	if bytes.Contains(line, []byte(" HTTP/")) {
		return true
	}
	for _, method := range []string{"GET /", "POST /", "PUT /", "HEAD /", "OPTIONS ", "DELETE /", "PATCH /", "CONNECT ", "TRACE /"} {
		if bytes.HasPrefix(line, []byte(method)) {
			return true
		}
	}
	return false
}
