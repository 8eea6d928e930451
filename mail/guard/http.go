package guard

import "bytes"

// maxFirstBytes is more than any mail client sends as its first line.
const maxFirstBytes = 1 << 10

// isHTTP adds a piece to the first line, and reports whether that is an HTTP request. A server
// executes no line before its end, so a request that comes in pieces is found in time. A longer
// first line counts as HTTP: its method may be unknown here, and its version stands behind a long
// URL.
func (g *Conn) isHTTP(piece []byte) bool {
	g.first = append(g.first, piece[:min(len(piece), maxFirstBytes)]...)
	ended := bytes.IndexByte(g.first, '\n') >= 0
	g.checked = ended || len(g.first) >= maxFirstBytes
	found := isHTTP(g.first) || g.checked && !ended
	if g.checked {
		g.first = nil
	}
	return found
}

// isHTTP reports whether a client's first bytes are an HTTP request. A browser or a server-side
// fetch can be made to send one with mail commands in its body, and identity by tap would then
// accept them.
func isHTTP(first []byte) bool {
	line, _, _ := bytes.Cut(first, []byte("\n"))
	if bytes.Contains(line, []byte(" HTTP/")) {
		return true
	}
	for _, method := range []string{
		"GET /", "POST /", "PUT /", "HEAD /", "OPTIONS ", "DELETE /", "PATCH /", "CONNECT ", "TRACE /",
	} {
		if bytes.HasPrefix(line, []byte(method)) {
			return true
		}
	}
	return false
}
