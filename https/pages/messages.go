package pages

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"lodge/gateway"
	"lodge/https/names"
)

// again leads to the page that was to be opened.
func again() Link { return Link{Text: "Try again", URL: ""} }

// Misdirected answers a request whose host name is not that of the handshake, or not one of this
// host.
func Misdirected() Page {
	return Page{
		Status: http.StatusMisdirectedRequest, Kind: gateway.KindNotFound, Title: "Misdirected request",
		Text: []string{"The host name of the request is not that of the TLS connection, or does not exist on this host. Check the address, and open it again."},
	}
}

// NotFound answers a path of the gateway's own that does not exist.
func NotFound() Page {
	return Page{Status: http.StatusNotFound, Kind: gateway.KindNotFound, Title: "Page not found", Links: []Link{{"Back to the start", "/"}}}
}

// SlowBody answers a request whose body did not arrive.
func SlowBody() Page {
	return Page{
		Status: http.StatusRequestTimeout, Kind: gateway.KindInvalid, Title: "Request timed out",
		Text: []string{"The body of the request made no progress. Send it again."},
	}
}

// NotAProxy answers CONNECT.
func NotAProxy() Page {
	return Page{
		Status: http.StatusNotImplemented, Kind: gateway.KindInvalid, Title: "CONNECT is not supported",
		Text: []string{"This host is not a proxy. Send requests to the name of a VM."},
	}
}

// TooManyCookies answers a request with more cookies than fit, and removes them: no page of the host
// could be opened with them.
func TooManyCookies() Page {
	return Page{
		Status: http.StatusRequestHeaderFieldsTooLarge, Kind: gateway.KindInvalid, Title: "Too many cookies",
		Text: []string{
			"A page of this host set more cookies than a request can carry. They are removed, and logins with them.",
			"This page then opens by itself.",
		},
		Buttons: []Link{again()}, ClearCookies: true, Refresh: 1,
	}
}

// HeaderTooLarge answers a request whose header is above the limit.
func HeaderTooLarge() Page {
	return Page{
		Status: http.StatusRequestHeaderFieldsTooLarge, Kind: gateway.KindInvalid, Title: "Request header too large",
		Text: []string{"Its fields have more than 64 KiB. Send a part of them in the body."},
	}
}

// BadBody answers a request whose body could not be read.
func BadBody() Page {
	return Page{
		Status: http.StatusBadRequest, Kind: gateway.KindInvalid, Title: "Malformed request body",
		Text: []string{"The body of the request is not chunked as HTTP requires, or ends too early."},
	}
}

// BadRequestLine answers a request whose method is no token, or whose target is no path.
func BadRequestLine() Page {
	return Page{
		Status: http.StatusBadRequest, Kind: gateway.KindInvalid, Title: "Malformed request line",
		Text: []string{"Its method is malformed, or its target is not a path."},
	}
}

// InternalError answers a failure of the host; the cause is in the log.
func InternalError() Page {
	return Page{
		Status: http.StatusInternalServerError, Kind: gateway.KindInternal, Title: "Something went wrong",
		Text: []string{"The host could not complete the request. Its log has the cause:"}, Command: "journalctl -u lodged", Where: "on the host",
	}
}

// nothingHere is the title for who may not see a page, whether it exists or not.
const nothingHere = "Nothing here that you may see"

// Private answers a visitor without a session. It is the same whether a VM has the name or not. login and
// ask are URLs at the domain itself; they are empty where people cannot log in.
func Private(rt names.Route, login, ask string) Page {
	p := Page{
		Status: http.StatusUnauthorized, Kind: gateway.KindDenied, Title: nothingHere,
		Text:    []string{"Either there is no such page, or it is not shared with you."},
		Before:  "If it is yours, make a one-time login link and open it in this browser:",
		Command: "lodge open " + rt.VMName, Where: "on the host",
	}
	if login != "" {
		p.Buttons = []Link{{"Log in", login}}
	}
	if ask != "" {
		p.Buttons = append(p.Buttons, Link{"Ask for access", ask})
	}
	return p
}

// Refused answers somebody who is logged in, but may not open the page. It is the same whether a VM has
// the name or not. The page at the URL ask sends a request to the owner.
func Refused(address, ask string) Page {
	p := Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: nothingHere,
		Text: []string{"You are logged in as " + address + ". Either there is no such page, or it is not shared with you."},
	}
	if ask != "" {
		p.Buttons = []Link{{"Ask for access", ask}}
	}
	return p
}

// DeniedToVM answers another VM, and any VM at the login. It is the same whether a VM has the name
// or not.
func DeniedToVM(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: nothingHere,
		Text:    []string{"A VM can open its own pages and the public pages of other VMs. The owner can share a page:"},
		Command: shareCommand(rt), Where: "on the host",
	}
}

// CrossSite answers a request that a browser sends for a page elsewhere.
func CrossSite(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "Cross-site request blocked",
		Text:    []string{"A page of another VM or site sent this request with your login. Private pages accept requests from their own VM only. To allow others, share this one:"},
		Command: shareCommand(rt), Where: "on the host",
	}
}

func shareCommand(rt names.Route) string {
	if rt.Bucket != "" {
		return fmt.Sprintf("lodge share %s s3:%s public", rt.VMName, rt.Bucket)
	}
	if rt.Port == gateway.DefaultPort {
		return "lodge share " + rt.VMName + " public"
	}
	return fmt.Sprintf("lodge share %s %d public", rt.VMName, rt.Port)
}

// LoginButton is the page of a login link. Its button logs in.
func LoginButton(rt names.Route, token string) Page {
	return Page{
		Status: http.StatusOK, Title: "Open " + rt.VMName,
		Text:  []string{"The link logs this browser in for 30 days. It works once."},
		Forms: []Form{{Button: "Open", Action: loginPath, Hidden: []Field{{"token", token}}}},
	}
}

// LinkButton is the page of a link to a port. Its button opens the port in this browser.
func LinkButton(rt names.Route, token string) Page {
	return Page{
		Status: http.StatusOK, Title: "Open " + rt.VMName,
		Text:  []string{"Somebody shared " + rt.Host + " with you by a link. The button opens it in this browser."},
		Forms: []Form{{Button: "Open", Action: "/.lodge/link", Hidden: []Field{{"token", token}}}},
	}
}

// LinkEnded answers a link to a port that opens nothing, or no more.
func LinkEnded() Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This link is no longer valid",
		Text: []string{"It has expired, was used as often as it may be, or was taken back. Ask for a new one where you have it from."},
	}
}

// BadToken answers a request whose token is not valid for the port. It is the same whether a VM has the
// name or not.
func BadToken(rt names.Route) Page {
	return Page{
		Status: http.StatusUnauthorized, Kind: gateway.KindDenied, Title: "This token is not valid here",
		Text:    []string{"A token is valid for one VM, for one port or all, until it expires or is removed. The owner can make another one:"},
		Command: "lodge token new " + rt.VMName, Where: "on the host",
	}
}

// TooManyWrong answers an address from which too many wrong links, codes or tokens came.
func TooManyWrong() Page {
	return Page{
		Status: http.StatusTooManyRequests, Kind: gateway.KindDenied, Title: "Too many wrong links or tokens",
		Text: []string{"None of these links and tokens is valid. Wait a minute before you try another one."},
	}
}

// Joining is the page that logs a browser in at names of the VM, by images from plain on, and then
// opens the path next.
func Joining(rt names.Route, next, plain string) Page {
	return Page{
		Status: http.StatusOK, Title: "Opening " + rt.VM.Name,
		Text: []string{"This browser is logged in at the other ports of the VM too. The page opens by itself."}, Next: next, Via: plain,
	}
}

// LogoutButton is the page whose button logs out.
func LogoutButton(rt names.Route) Page {
	return Page{
		Status: http.StatusOK, Title: "Log out of " + rt.VM.Name,
		Text:  []string{"This ends the login of this browser at all names of the VM, and closes what is open."},
		Forms: []Form{{Button: "Log out", Action: "/.lodge/logout"}},
	}
}

// LoggedOut answers after a logout.
func LoggedOut(rt names.Route) Page {
	return Page{
		Status: http.StatusOK, Title: "Logged out of " + rt.VM.Name,
		Text:    []string{"What this browser had open there is closed."},
		Buttons: []Link{{"Log in again", "/"}},
	}
}

// LinkUsed answers a login link that was used or has expired.
func LinkUsed(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This link is no longer valid",
		Text:    []string{"A login link works once, within 15 minutes."},
		Buttons: []Link{{"Open the page", "/"}},
		Before:  "If you are not logged in, make a new one:",
		Command: "lodge open " + rt.VMName, Where: "on the host",
	}
}

// LoginFailed answers a login from another name of the VM that this browser did not start, or too
// late.
func LoginFailed(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "Login failed",
		Text:  []string{"This browser did not start the login, started it more than a minute ago, or keeps no cookies. Try again:"},
		Links: []Link{{rt.Host, "/"}},
	}
}

// StartPath starts the VM of a name.
const StartPath = "/.lodge/start"

// Stopped answers for a VM that is not running. Who may start it does that by a button, which then opens
// path.
func Stopped(rt names.Route, mayStart bool, path string) Page {
	p := Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is stopped",
		Text: []string{"This page opens by itself when the VM runs."}, Refresh: 10,
	}
	if mayStart {
		p.Text = []string{"Its disk is kept. This page opens by itself when the VM runs."}
		p.Forms = []Form{{Button: "Start the VM", Action: StartPath, Hidden: []Field{{"path", path}}}}
		p.Before, p.Command, p.Where = "Or start it by hand:", "lodge start "+rt.VM.Name, "on the host"
	}
	return p
}

// Started answers after the button of Stopped, and then opens path.
func Started(rt names.Route, path string) Page {
	p := Starting(rt)
	p.Status, p.Kind, p.Refresh, p.To = http.StatusOK, "", 1, path
	return p
}

// NotStarted answers when the VM could not be started.
func NotStarted(rt names.Route, status int, err error, path string) Page {
	p := Failed(status, err, path)
	p.Title = rt.VM.Name + " did not start"
	return p
}

// Starting answers when a VM that was woken takes longer than a request is held, or too many are.
func Starting(rt names.Route) Page {
	return Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is starting",
		Text: []string{"This page opens by itself when it answers."}, Refresh: 3,
	}
}

// TooMany answers a visitor with more requests than one may make.
func TooMany(rt names.Route) Page {
	return Page{
		Status: http.StatusTooManyRequests, Kind: gateway.KindUnavailable, Title: "Too many requests",
		Text: []string{"You send more requests to " + rt.VM.Name + " than one visitor may. This page opens by itself when there are fewer."}, Refresh: 10,
	}
}

// Busy answers when the VM has too many requests.
func Busy(rt names.Route) Page {
	return Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is busy",
		Text: []string{"It has too many requests. This page opens by itself when there are fewer."}, Refresh: 10,
	}
}

// NoAnswer answers when the VM does not react at all.
func NoAnswer(rt names.Route) Page {
	return Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " does not answer yet",
		Text: []string{"It may still be starting. This page opens by itself when it answers."}, Refresh: 3,
	}
}

// BadAnswer answers when the app took the request but sent no valid response.
func BadAnswer(rt names.Route) Page {
	return Page{
		Status: http.StatusBadGateway, Kind: gateway.KindUnavailable, Title: "Bad response from the app in " + rt.VM.Name,
		Text:    []string{"The app accepted the request, then closed the connection without a response or sent one that is not HTTP. The app's own log has the cause."},
		Buttons: []Link{again()},
	}
}

// webPorts lists gateway.WebPorts for a sentence.
func webPorts() string {
	var words []string
	for _, port := range gateway.WebPorts() {
		words = append(words, strconv.Itoa(int(port)))
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// NothingListens answers for a VM that runs but has nothing at the port. open are the ports that do
// listen and that the visitor may open; who may use the VM is shown how to make one listen.
func NothingListens(rt names.Route, mayUse bool, open []Link) Page {
	p := Page{
		Status: http.StatusBadGateway, Kind: gateway.KindUnavailable, Title: "Nothing listens in " + rt.VM.Name,
		Text: []string{"This page opens by itself when an app listens."}, Refresh: 3,
		Above: "These ports listen:", Links: open,
	}
	if rt.Port != gateway.DefaultPort {
		p.Title = fmt.Sprintf("Nothing listens on port %d of %s", rt.Port, rt.VM.Name)
	}
	if !mayUse {
		return p
	}
	if rt.Port == gateway.DefaultPort {
		p.Text = append(p.Text, "The plain name leads to the first open port of "+webPorts()+".")
	}
	p.Text = append(p.Text, "An app that listens on 127.0.0.1 is not reachable: make it listen on 0.0.0.0.")
	p.Before = "A server for a test:"
	p.Command, p.Where = fmt.Sprintf("python3 -m http.server %d", cmp.Or(rt.Port, 8000)), "in the VM"
	return p
}

// Root is the host's own page. It shows nothing of the VMs.
func Root(domain string, loggedIn bool) Page {
	p := Page{
		Status: http.StatusOK, Title: "This is a Lodge host",
		Text: []string{
			"This host runs virtual machines. Each has its own web address below this one, https://<vm>." + domain + ", which is private until its owner shares it.",
		},
		Buttons: []Link{{"Log in", loginPath}},
		Before:  "On the host, lodge ls lists the VMs, and this makes a link that opens one of them in a browser:",
		Command: "lodge open <vm>", Where: "on the host",
	}
	if loggedIn {
		p.Buttons = []Link{{"Your pages", accountPath}}
	}
	return p
}
