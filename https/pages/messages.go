package pages

import (
	"cmp"
	"fmt"
	"net/http"

	"lodge/gateway"
	"lodge/https/names"
)

// Misdirected answers a request whose host name is not that of the handshake, or not one of this host.
func Misdirected() Page {
	return Page{
		Status: http.StatusMisdirectedRequest, Kind: gateway.KindNotFound, Title: "No such name here",
		Text: []string{"The host name of the request is not the one of its connection, or nothing here has that name."},
	}
}

// NotFound answers a path of the gateway's own that does not exist.
func NotFound() Page {
	return Page{Status: http.StatusNotFound, Kind: gateway.KindNotFound, Title: "No such page"}
}

// NotAProxy answers CONNECT.
func NotAProxy() Page {
	return Page{Status: http.StatusNotImplemented, Kind: gateway.KindInvalid, Title: "This is not a forward proxy"}
}

// InternalError answers a failure of the host; the cause is in the log.
func InternalError() Page {
	return Page{
		Status: http.StatusInternalServerError, Kind: gateway.KindInternal, Title: "This did not work",
		Text: []string{"The host could not do that. Its log says why:"}, Command: "journalctl -u lodged", Where: "on the host",
	}
}

// Private answers a stranger.
func Private(rt names.Route) Page {
	return Page{
		Status: http.StatusUnauthorized, Kind: gateway.KindDenied, Title: "This page is private",
		Text:    []string{"It has not been shared with you. If it is yours, make a link that logs you in, once, and open it in this browser:"},
		Command: "lodge open " + rt.VM.Name, Where: "on the host",
	}
}

// DeniedToVM answers another VM, and a VM that wants to log in.
func DeniedToVM(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This page is private",
		Text:    []string{"A VM reaches its own pages, and those of others that are public. The owner can share this one:"},
		Command: shareCommand(rt), Where: "on the host",
	}
}

// CrossSite answers a request that a browser sends for a page elsewhere.
func CrossSite(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "Refused on behalf of another page",
		Text:    []string{"A page elsewhere asked for this with your login. Private pages answer only to themselves. To let others use it, share it:"},
		Command: shareCommand(rt), Where: "on the host",
	}
}

func shareCommand(rt names.Route) string {
	if rt.Port == gateway.DefaultPort {
		return "lodge share " + rt.VM.Name + " public"
	}
	return fmt.Sprintf("lodge share %s %d public", rt.VM.Name, rt.Port)
}

// LoginButton is the page of a login link. Its button logs in.
func LoginButton(rt names.Route, token string) Page {
	return Page{
		Status: http.StatusOK, Title: "Open " + rt.VM.Name,
		Text:  []string{"The link logs this browser in for 30 days. It works once."},
		Token: token,
	}
}

// LinkUsed answers a login link that was used or has expired.
func LinkUsed(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This link does not work any more",
		Text:    []string{"A link works once, for 15 minutes. Make a new one:"},
		Command: "lodge open " + rt.VM.Name, Where: "on the host",
	}
}

// LoginFailed answers a login from another name of the VM that this browser did not start, or too late.
func LoginFailed(rt names.Route) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "The login did not arrive",
		Text:  []string{"This browser did not ask for it a moment ago, or it does not keep cookies. Try again:"},
		Links: []Link{{rt.Host, "/"}},
	}
}

// Stopped answers for a VM that is not running.
func Stopped(rt names.Route, owner bool) Page {
	p := Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is stopped",
		Text: []string{"The page is here again once the VM runs."}, Refresh: 10, Owner: owner,
	}
	if owner {
		p.Command, p.Where = "lodge start "+rt.VM.Name, "on the host"
		p.Text = []string{"Its disk and files are kept. Start it, and this page opens by itself:"}
	}
	return p
}

// Busy answers when the VM has too many requests under way.
func Busy(rt names.Route) Page {
	return Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is busy",
		Text: []string{"Too many requests wait for its answer. This page opens by itself when there is room."}, Refresh: 10,
	}
}

// NoAnswer answers when the VM does not react at all.
func NoAnswer(rt names.Route) Page {
	return Page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " does not answer yet",
		Text: []string{"It may still be starting. This page opens by itself as soon as it answers."}, Refresh: 3,
	}
}

// BadAnswer answers when the app took the request but sent no valid response.
func BadAnswer(rt names.Route) Page {
	return Page{
		Status: http.StatusBadGateway, Kind: gateway.KindUnavailable, Title: "No answer from the app in " + rt.VM.Name,
		Text: []string{"It took the request, but ended the connection without an answer, or with one that is not HTTP."},
	}
}

// NothingListens answers for a VM that runs but has nothing at the port. Its owner sees open, the ports that do listen.
func NothingListens(rt names.Route, owner bool, open []Link) Page {
	p := Page{
		Status: http.StatusBadGateway, Kind: gateway.KindUnavailable, Title: "Nothing listens in " + rt.VM.Name,
		Text: []string{"This page opens by itself the moment something does."}, Refresh: 3, Owner: owner,
	}
	if rt.Port != gateway.DefaultPort {
		p.Title = fmt.Sprintf("Nothing listens on port %d of %s", rt.Port, rt.VM.Name)
	}
	if !owner {
		return p
	}
	if rt.Port == gateway.DefaultPort {
		p.Text = append(p.Text, "It leads to the first of the ports 80, 8000, 8080, 3000, 5000 and 5173 that is open.")
	}
	p.Text = append(p.Text, "An app that listens on 127.0.0.1 cannot be reached from here: let it listen on 0.0.0.0. A server to try with:")
	p.Command, p.Where = fmt.Sprintf("python3 -m http.server %d", cmp.Or(rt.Port, 8000)), "in the VM"
	p.Links = open
	return p
}

// Root is the host's own page. It shows nothing of the VMs.
func Root(domain string) Page {
	return Page{
		Status: http.StatusOK, Title: "Lodge",
		Text: []string{
			"This host keeps virtual machines. Each has a web address of its own below this one, https://<vm>." + domain + ", and it is private until its owner shares it.",
			"On the host, lodge ls lists the machines, and this makes a link that opens one of them in a browser:",
		},
		Command: "lodge open <vm>", Where: "on the host",
	}
}
