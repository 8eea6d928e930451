package https

import (
	"net/http"
	"strings"

	"lodge/https/login"
	"lodge/https/names"
)

// protocolField is where net/http has the :protocol of an extended CONNECT (RFC 8441 §4). No client can
// send a field of that name.
const protocolField = ":protocol"

// isTunnel reports whether r asks for a tunnel: a CONNECT, or what has a :protocol as if it were one.
func isTunnel(r *http.Request) bool {
	return r.Method == http.MethodConnect || len(r.Header[protocolField]) > 0
}

// isWebSocket reports whether a tunnel is a WebSocket to an app. A status of 200 opens a tunnel, so none
// leads to the gateway's own pages.
func isWebSocket(r *http.Request, rt names.Route) bool {
	return r.Method == http.MethodConnect && r.Header.Get(protocolField) == "websocket" && rt.VMName != "" && rt.Service == "" && !strings.HasPrefix(r.URL.Path, login.Prefix)
}
