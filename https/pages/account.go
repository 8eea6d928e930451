package pages

import (
	"errors"
	"net/http"
	"strings"

	"lodge/gateway"
)

// Section is a part of a page with a heading of its own.
type Section struct {
	Title string
	Text  []string
	Rows  []Row
	Forms []Form
}

// Row is one of several things that can be changed.
type Row struct {
	Title, Note string
	Forms       []Form
}

// Form has one button, and a field if Label is set.
type Form struct {
	Button      string
	Action      string // the path of its POST; empty for one that the page's script serves
	Hidden      []Field
	Label       string // of the field
	Value       string // in the field
	Placeholder string
	Quiet       bool   // the button is not the main one
	Passkey     string // what the script of package passkey does with it: register, login
}

// Field is a hidden value of a form.
type Field struct{ Name, Value string }

// Item is a passkey or a session on the account page.
type Item struct {
	ID, Name, Note string
	This           bool // the session of the page
}

// Account is what the account page shows.
type Account struct {
	Address  string
	Stale    bool // the login is too old to add a passkey
	Passkeys []Item
	Sessions []Item
}

// The paths of the forms.
const (
	loginPath   = "/.lodge/login"
	accountPath = "/.lodge/account"
	oidcPath    = "/.lodge/oidc/"
)

// Ways is the page with the ways in. to is the URL that opens after the login.
func Ways(providers []string, to string) Page {
	p := Page{
		Status: http.StatusOK, Title: "Log in",
		Text:     []string{"Without a passkey, make a one-time link and open it in this browser:"},
		Command:  "lodge open",
		Where:    "on the host",
		Passkeys: true,
		Ways:     []Form{{Button: "Log in with a passkey", Passkey: "login"}},
	}
	for _, name := range providers {
		p.Ways = append(p.Ways, Form{Button: "Log in with " + name, Action: oidcPath + name, Hidden: []Field{{"to", to}}, Quiet: true})
	}
	return p
}

// ApexLink is the page of a link to the domain itself. Its button logs in.
func ApexLink(token string) Page {
	return Page{
		Status: http.StatusOK, Title: "Log in",
		Text: []string{"The link logs this browser in for 30 days. It works once."},
		Ways: []Form{{Button: "Log in", Action: loginPath, Hidden: []Field{{"token", token}}}},
	}
}

// ApexLinkUsed answers a link to the domain itself that was used or has expired.
func ApexLinkUsed() Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This link is no longer valid",
		Text:    []string{"A login link works once, within 15 minutes. Make a new one:"},
		Command: "lodge open", Where: "on the host",
	}
}

// Continue is the page that leads to a login provider by itself.
func Continue(provider, at string) Page {
	return Page{
		Status: http.StatusOK, Title: "Opening " + provider,
		Text: []string{"The login goes on at the provider's page, which opens by itself."}, Next: at, Links: []Link{{"Open it", at}},
	}
}

// NotShared answers a person who is logged in, but may not open the page. It is the same whether the
// page exists or not.
func NotShared(address string) Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "Nothing here that you may see",
		Text: []string{"Either there is no such page, or it is not shared with " + address + "."}, Links: []Link{{"Your account", accountPath}},
	}
}

// Failed shows an error that is meant for a person, with a link to try again.
func Failed(status int, err error, again string) Page {
	p := Page{Status: status, Kind: gateway.KindOf(err), Title: "That did not work", Links: []Link{{"Try again", again}}}
	if e, ok := errors.AsType[*gateway.Error](err); ok {
		p.Text = []string{strings.ToUpper(e.Msg[:1]) + e.Msg[1:] + "."}
		if e.Hint != "" {
			p.Text = append(p.Text, e.Hint)
		}
	}
	return p
}

// AccountOf is the page of who is logged in.
func AccountOf(a Account) Page {
	p := Page{
		Status: http.StatusOK, Title: "Your account", Text: []string{"You are logged in as " + a.Address + "."}, Passkeys: true,
		Sections: []Section{passkeysOf(a), sessionsOf(a)},
	}
	return p
}

func passkeysOf(a Account) Section {
	s := Section{Title: "Passkeys", Text: []string{"A passkey logs you in with the fingerprint, the face or the PIN of a device."}}
	for _, k := range a.Passkeys {
		id := Field{"id", k.ID}
		s.Rows = append(s.Rows, Row{Title: k.Name, Note: k.Note, Forms: []Form{
			{Button: "Rename", Action: accountPath, Hidden: []Field{{"do", "rename-passkey"}, id}, Label: "Name of " + k.Name, Value: k.Name, Quiet: true},
			{Button: "Remove", Action: accountPath, Hidden: []Field{{"do", "remove-passkey"}, id}, Quiet: true},
		}})
	}
	switch {
	case len(a.Passkeys) >= gateway.MaxPasskeys:
	case a.Stale:
		s.Text = append(s.Text, "Adding one needs a login of the last 15 minutes.")
		s.Forms = []Form{{Button: "Log in again to add a passkey", Action: accountPath, Hidden: []Field{{"do", "log-in-again"}}, Quiet: true}}
	default:
		s.Forms = []Form{{Button: "Add a passkey", Passkey: "register", Label: "Name of the new passkey", Placeholder: "name, such as phone"}}
	}
	return s
}

func sessionsOf(a Account) Section {
	s := Section{Title: "Logins"}
	for _, one := range a.Sessions {
		row := Row{Title: one.Name, Note: one.Note}
		if one.This {
			row.Title += " (this browser)"
		} else {
			row.Forms = []Form{{Button: "End", Action: accountPath, Hidden: []Field{{"do", "end-session"}, {"id", one.ID}}, Quiet: true}}
		}
		s.Rows = append(s.Rows, row)
	}
	s.Forms = []Form{
		{Button: "Log out", Action: accountPath, Hidden: []Field{{"do", "log-out"}}},
		{Button: "Log out everywhere", Action: accountPath, Hidden: []Field{{"do", "log-out-everywhere"}}, Quiet: true},
	}
	return s
}
