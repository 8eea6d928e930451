package https_test

import (
	"flag"
	"slices"
	"strings"
)

var oddRandom = flag.Int("odd", 0, "how many odd requests are made at random, and compared with nginx too")

// What the gateway must not take for a request of its own, or must, where the request before it is
// complete; and the same as a body of 69 bytes.
const (
	evil     = "GET /evil HTTP/1.1\r\nHOST\r\n\r\n"
	evilBody = "GET /evil HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: close\r\n\r\n"
)

func oddRequests() []odd {
	return slices.Concat(oddLines, oddTargets, oddFields, oddHosts, oddLengths, oddEncodings, oddChunks, oddConnections)
}

var oddLines = []odd{
	{name: "plain", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "line feeds alone", want: "200 200 200", bytes: "GET /odd HTTP/1.1\nHost: blog.lodge.localhost\nConnection: close\nCOOKIE\n\n"},
	{name: "line feed after the request line", want: "200 200 200", bytes: "GET /odd HTTP/1.1\nHOST\r\n\r\n"},
	{name: "line feed at the end of the header", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n\n"},
	{name: "carriage returns alone", want: "400 400 400", bytes: "GET /odd HTTP/1.1\rHost: blog.lodge.localhost\r\r", cut: true},
	{name: "carriage return in the request line", want: "400 400 400", bytes: "GET /odd\r HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "two spaces", want: "400 400 200", bytes: "GET  /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "tab as a space", want: "400 400 400", bytes: "GET\t/odd\tHTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "space at the end", want: "400 400 200", bytes: "GET /odd HTTP/1.1 \r\nHOST\r\n\r\n"},
	{name: "space at the start", want: "400 400 400", bytes: " GET /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "empty line before", want: "400 400 200", bytes: "\r\nGET /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "space in the target", want: "400 400 400", bytes: "GET /odd HTTP/1.1 /x HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "no method", want: "400 400 400", bytes: "/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "no target", want: "400 400 400", bytes: "GET HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "method in lower case", want: "200 200 400", bytes: "get /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "method of an extension", want: "200 200 200", bytes: "M-SEARCH /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "method with a delimiter", want: "400 400 400", bytes: "G@T /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "method with a NUL", want: "400 400 400", bytes: "GET\x00 /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "TRACE", want: "200 200 405", bytes: "TRACE /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "HTTP/0.9", want: "400 400 none", bytes: "GET /odd\r\n", cut: true},
	{name: "HTTP/0.9, with a header", want: "400 400 none", bytes: "GET /odd\r\nHOST\r\n\r\n"},
	{name: "HTTP/1.0 without a host", want: "421 200 200", bytes: "GET /odd HTTP/1.0\r\n\r\n"},
	{name: "HTTP/1.0", want: "200 200 200", bytes: "GET /odd HTTP/1.0\r\nHOST\r\n\r\n"},
	{name: "HTTP/1.0, kept alive", want: "200,200 200,200 200,200", bytes: "GET /odd HTTP/1.0\r\nKEEP\r\nConnection: keep-alive\r\n\r\n" + evil},
	{name: "HTTP/1.0, chunked", want: "200 200 400", bytes: "POST /odd HTTP/1.0\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil},
	{name: "HTTP/1.2", want: "200 200 200", bytes: "GET /odd HTTP/1.2\r\nHOST\r\n\r\n"},
	{name: "HTTP/1.10", want: "400 400 200", bytes: "GET /odd HTTP/1.10\r\nHOST\r\n\r\n"},
	{name: "HTTP/01.1", want: "400 400 400", bytes: "GET /odd HTTP/01.1\r\nHOST\r\n\r\n"},
	{name: "HTTP/3.0", want: "505 505 505", bytes: "GET /odd HTTP/3.0\r\nHOST\r\n\r\n"},
	{name: "http/1.1", want: "400 400 400", bytes: "GET /odd http/1.1\r\nHOST\r\n\r\n"},
	{name: "preface of HTTP/2", want: "421 200 400", bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", cut: true},
	{name: "TLS in TLS", want: "400 400 400", bytes: "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n", cut: true},
	{name: "request line of 2 MiB", want: "431 431 414", bytes: "GET /" + strings.Repeat("x", 2<<20) + " HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "target of 100 KiB", want: "200 200 414", bytes: "GET /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHOST\r\n\r\n"},
}

var oddTargets = []odd{
	{name: "absolute form", want: "200 200 200", bytes: "GET https://blog.lodge.localhost/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, http", want: "200 200 200", bytes: "GET http://blog.lodge.localhost/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, another scheme", want: "200 200 200", bytes: "GET gopher://blog.lodge.localhost/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, another host", want: "421 200 200", bytes: "GET https://shop.lodge.localhost/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, a user", want: "200 200 400", bytes: "GET https://evil@blog.lodge.localhost/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, another Host", want: "200 200 200", bytes: "GET https://blog.lodge.localhost/odd HTTP/1.1\r\nHost: shop.lodge.localhost\r\nCOOKIE\r\nConnection: close\r\n\r\n"},
	{name: "absolute form, no path", want: "200 200 200", bytes: "GET https://blog.lodge.localhost HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, a query alone", want: "200 200 200", bytes: "GET https://blog.lodge.localhost?odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "absolute form, opaque", want: "400 200 400", bytes: "GET https:blog.lodge.localhost/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "asterisk", want: "200 200 400", bytes: "OPTIONS * HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "asterisk, GET", want: "400 200 400", bytes: "GET * HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "authority form", want: "400 200 400", bytes: "GET blog.lodge.localhost:443 HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "CONNECT", want: "501 200 400", bytes: "CONNECT blog.lodge.localhost:22 HTTP/1.1\r\nHost: blog.lodge.localhost:22\r\nConnection: close\r\n\r\n"},
	{name: "CONNECT, a path", want: "501 200 405", bytes: "CONNECT /odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "no slash", want: "400 400 400", bytes: "GET odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "query alone", want: "400 400 400", bytes: "GET ?odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "two slashes", want: "200 200 200", bytes: "GET //evil.example/odd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "dots", want: "200 200 400", bytes: "GET /a/../../odd/./x HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "encoded dots", want: "200 200 400", bytes: "GET /%2e%2e/%2E%2E%2fodd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "encoded NUL", want: "200 200 400", bytes: "GET /odd%00x HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "encoded line break", want: "200 200 200", bytes: "GET /odd%0d%0aX-Lodge-User:%20evil HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "encoded percent sign", want: "200 200 200", bytes: "GET /odd%252e%25 HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "bad encoding", want: "400 400 400", bytes: "GET /odd%zz HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "cut encoding", want: "400 400 400", bytes: "GET /odd% HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "bad encoding in the query", want: "200 200 200", bytes: "GET /odd?%zz% HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "parameters", want: "200 200 200", bytes: "GET /odd;a=b/..;/x?c;d?e HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "fragment", want: "200 200 502", bytes: "GET /odd#x?y HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "fragment in the query", want: "200 200 502", bytes: "GET /odd?y#x HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "backslashes", want: "200 200 200", bytes: "GET /\\odd\\..\\x HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "quotes and braces", want: "200 200 200", bytes: "GET /odd<>{}|^`\"' HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "quotes in the query", want: "200 200 200", bytes: "GET /odd?<>{}|^`\"'[] HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "UTF-8", want: "200 200 502", bytes: "GET /ödd HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "UTF-8 in the query", want: "200 200 502", bytes: "GET /odd?ö HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "not UTF-8", want: "200 200 502", bytes: "GET /odd\xff\xc0\xae HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "NUL in the target", want: "400 400 400", bytes: "GET /odd\x00 HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "NUL in the query", want: "400 400 400", bytes: "GET /odd?\x00 HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "DEL in the query", want: "400 400 400", bytes: "GET /odd?\x7f HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "control character in the target", want: "400 400 400", bytes: "GET /odd\x0b HTTP/1.1\r\nHOST\r\n\r\n"},
}

var oddFields = []odd{
	{name: "folded field", want: "200 200 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\r\n b\r\n\r\n"},
	{name: "field folded by a tab", want: "200 200 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\r\n\tX-Lodge-User: evil\r\n\r\n"},
	{name: "encoding in a fold", want: "200 200 400", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "fold of nothing", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\n X: a\r\nHOST\r\n\r\n"},
	{name: "fold of spaces alone", want: "200 200 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\r\n \r\n\r\n"},
	{name: "space before the colon", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX-Lodge-User : evil\r\n\r\n"},
	{name: "tab before the colon", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX-Lodge-User\t: evil\r\n\r\n"},
	{name: "no space after the colon", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX:a\r\n\r\n"},
	{name: "no colon", want: "400 400 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX\r\n\r\n"},
	{name: "no name", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n: a\r\n\r\n"},
	{name: "no value", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX:\r\n\r\n"},
	{name: "name with a delimiter", want: "400 400 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX(y): a\r\n\r\n"},
	{name: "name with a NUL", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX\x00: a\r\n\r\n"},
	{name: "name that is not ASCII", want: "400 400 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX-Lödge-User: evil\r\n\r\n"},
	{name: "NUL in a value", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\x00b\r\n\r\n"},
	{name: "control character in a value", want: "400 400 502", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\x01b\r\n\r\n"},
	{name: "DEL in a value", want: "400 400 502", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\x7fb\r\n\r\n"},
	{name: "tab in a value", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\tb\r\n\r\n"},
	{name: "carriage return in a value", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\rX-Lodge-User: evil\r\n\r\n"},
	{name: "carriage return at the end", want: "400 400 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\r\r\n\r\n"},
	{name: "line feed in a value", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: a\nX-Lodge-User: evil\r\n\r\n"},
	{name: "value that is not ASCII", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: \xe4\xff\xc0\x80\r\n\r\n"},
	{name: "value of 100 KiB", want: "431 200 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n"},
	{name: "name of 100 KiB", want: "431 200 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n" + strings.Repeat("x", 100<<10) + ": a\r\n\r\n"},
	{name: "20,000 fields", want: "431 200 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n" + strings.Repeat("X: abc\r\n", 20_000) + "\r\n"},
	{name: "header of 2 MiB", want: "431 431 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 2<<10) + "\r\n"},
	{name: "claims of identity", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nX-Lodge-User: evil\r\nHOST\r\nx_lodge_user: evil\r\nX-Lodge_Email: evil\r\nX.Lodge.User: evil\r\nX-LODGE-VM: evil\r\nX-Lodge: evil\r\n" +
		"X-Forwarded-For: evil\r\nX_Forwarded_Host: evil\r\nX-Forwarded-Proto: evil\r\nForwarded: for=evil\r\nX-Real-IP: evil\r\nRemote_User: evil\r\nTrue-Client-IP: evil\r\nCF-Connecting-IP: evil\r\nX-Original-URL: evil\r\nProxy: evil\r\n\r\n"},
	{name: "cookies of the gateway", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nCookie: a=b;__Host-lodge=evil\r\nCookie: __HOST-LODGE-handoff=evil; c=d\r\n\r\n"},
}

var oddHosts = []odd{
	{name: "no host", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nConnection: close\r\n\r\n"},
	{name: "empty host", want: "421 200 400", bytes: "GET /odd HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"},
	{name: "two hosts, equal", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nHost: blog.lodge.localhost\r\n\r\n"},
	{name: "two hosts", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nHost: shop.lodge.localhost\r\n\r\n"},
	{name: "two hosts, the other first", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHost: shop.lodge.localhost\r\nHOST\r\n\r\n"},
	{name: "two hosts in one field", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHost: blog.lodge.localhost, shop.lodge.localhost\r\nConnection: close\r\n\r\n"},
	{name: "another host", want: "421 200 200", bytes: "GET /odd HTTP/1.1\r\nHost: shop.lodge.localhost\r\nCOOKIE\r\nConnection: close\r\n\r\n"},
	{name: "host folded", want: "200 200 400", bytes: "GET /odd HTTP/1.1\r\nHost:\r\n blog.lodge.localhost\r\nCOOKIE\r\nConnection: close\r\n\r\n"},
	{name: "host with a path", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHost: blog.lodge.localhost/x\r\nConnection: close\r\n\r\n"},
	{name: "host with a user", want: "400 400 200", bytes: "GET /odd HTTP/1.1\r\nHost: x@blog.lodge.localhost\r\nConnection: close\r\n\r\n"},
	{name: "host with a space", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHost: blog.lodge.localhost x\r\nConnection: close\r\n\r\n"},
	{name: "host with a NUL", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nHost: blog.lodge.localhost\x00\r\nConnection: close\r\n\r\n"},
	{name: "host with a percent sign", want: "421 200 200", bytes: "GET /odd HTTP/1.1\r\nHost: blo%67.lodge.localhost\r\nConnection: close\r\n\r\n"},
	{name: "host with two ports", want: "421 200 200", bytes: "GET /odd HTTP/1.1\r\nHost: blog.lodge.localhost:443:80\r\nConnection: close\r\n\r\n"},
	{name: "host with a port that is none", want: "421 200 200", bytes: "GET /odd HTTP/1.1\r\nHost: blog.lodge.localhost:evil\r\nConnection: close\r\n\r\n"},
	{name: "host in brackets", want: "421 200 200", bytes: "GET /odd HTTP/1.1\r\nHost: [blog.lodge.localhost]\r\nConnection: close\r\n\r\n"},
	{name: "name in brackets, a port", want: "421 200 200", bytes: "GET /odd HTTP/1.1\r\nHost: [blog.lodge.localhost]:443\r\nConnection: close\r\n\r\n"},
	{name: "host that is not ASCII", want: "400 400 200", bytes: "GET /odd HTTP/1.1\r\nHost: blög.lodge.localhost\r\nConnection: close\r\n\r\n"},
}

var oddConnections = []odd{
	{name: "two requests", want: "200,200 200,200 200,200", bytes: "GET /odd HTTP/1.1\r\nKEEP\r\n\r\nGET /two HTTP/1.1\r\nHOST\r\n\r\n"},
	{name: "two requests with bodies", want: "200,200 200,200 200,200", bytes: "POST /odd HTTP/1.1\r\nKEEP\r\nContent-Length: 3\r\n\r\nabcPOST /two HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
	{name: "a bad one after a good one", want: "200,400 200,400 200,400", bytes: "GET /odd HTTP/1.1\r\nKEEP\r\n\r\nGET /two HTTP/1.1\r\nBad Field: x\r\n\r\n" + evil},
	{name: "a good one after a bad one", want: "400 400 400", bytes: "GET /odd HTTP/1.1\r\nKEEP\r\nBad Field: x\r\n\r\n" + evil},
	{name: "a request after the last one", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\n\r\n" + evil},
	{name: "another host after the first", want: "200,421 200,200 200,200", bytes: "GET /odd HTTP/1.1\r\nKEEP\r\n\r\nGET /two HTTP/1.1\r\nHost: shop.lodge.localhost\r\nCOOKIE\r\nConnection: close\r\n\r\n"},
	{name: "Expect", want: "100,200 100,200 100,200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"},
	{name: "Expect without a body", want: "200 200 100,200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nExpect: 100-continue\r\n\r\n"},
	{name: "Expect, another request as the body", want: "100,200 100,200 100,200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nExpect: 100-continue\r\nContent-Length: 69\r\n\r\n" + evilBody},
	{name: "unknown Expect", want: "417 417 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nExpect: odd\r\nContent-Length: 3\r\n\r\nabc"},
	{name: "Connection names Host", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nConnection: Host\r\n\r\n"},
	{name: "Connection names the length", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nConnection: Content-Length\r\nContent-Length: 69\r\n\r\n" + evilBody},
	{name: "Connection names the encoding", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
	{name: "Connection names our fields", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nConnection: X-Lodge-User, X-Lodge-Email, X-Forwarded-For, Cookie\r\nX-Lodge-User: evil\r\n\r\n"},
	{name: "Connection of nonsense", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nConnection: ,,\x80; =\"\r\n\r\n"},
	{name: "Keep-Alive", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nKeep-Alive: timeout=evil\r\nProxy-Connection: keep-alive\r\n\r\n"},
	{name: "TE", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nConnection: TE\r\nTE: trailers, gzip\r\n\r\n"},
	{name: "Upgrade to h2c", want: "200,200 200,200 200,200", bytes: "GET /odd HTTP/1.1\r\nKEEP\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + evil},
	{name: "Upgrade to TLS", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n"},
	{name: "Upgrade, a body", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc"},
	{name: "Upgrade that is not ASCII", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nConnection: Upgrade\r\nUpgrade: w\xe9bsocket\r\n\r\n"},
}
