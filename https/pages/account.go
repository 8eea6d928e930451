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

// Row is one of several things, which can be opened or changed.
type Row struct {
	Title, Note string
	URL         string // to which the title leads; empty for none
	Forms       []Form
}

// Form has one button.
type Form struct {
	Button  string
	Action  string // the path of its POST; empty for one that the page's script serves
	Hidden  []Field
	Input   *Input
	Quiet   bool   // the button is not the main one
	Passkey string // what the script of package passkey does with it: register, login
}

// Input is a field to type into.
type Input struct {
	Name, Label string
	Type        string // text or email
	Value       string
	Placeholder string
	Max         int // characters
}

// nameInput is the name of a passkey.
func nameInput(label, value, placeholder string) *Input {
	return &Input{Name: "name", Label: label, Type: "text", Value: value, Placeholder: placeholder, Max: 64}
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
	Stale    bool      // the login is too old to add a passkey
	Pages    []Row     // what they may open
	Requests []Request // that they may answer
	Passkeys []Item
	Sessions []Item
}

// The paths of the domain's own forms.
const (
	loginPath   = "/.lodge/login"
	accountPath = "/.lodge/account"
	AskPath     = "/.lodge/ask"      // ?to=: asks for access to a URL of a VM
	AnswerPath  = "/.lodge/requests" // ?id=: approves or denies
	oidcPath    = "/.lodge/oidc/"
)

// Ways is the page with the ways in. to is the URL that opens after the login.
func Ways(providers []string, to string) Page {
	p := Page{
		Status: http.StatusOK, Title: "Log in",
		Passkeys: true,
		Forms:    []Form{{Button: "Log in with a passkey", Passkey: "login"}},
		Before:   "Without a passkey, make a one-time link and open it in this browser:",
		Command:  "lodge open",
		Where:    "on the host",
	}
	for _, name := range providers {
		p.Forms = append(p.Forms, Form{Button: "Log in with " + name, Action: oidcPath + name, Hidden: []Field{{"to", to}}, Quiet: true})
	}
	return p
}

// ApexLink is the page of a link to the domain itself. Its button logs in.
func ApexLink(token string) Page {
	return Page{
		Status: http.StatusOK, Title: "Log in",
		Text:  []string{"The link logs this browser in for 30 days. It works once."},
		Forms: []Form{{Button: "Log in", Action: loginPath, Hidden: []Field{{"token", token}}}},
	}
}

// ApexLinkUsed answers a link to the domain itself that was used or has expired.
func ApexLinkUsed() Page {
	return Page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This link is no longer valid",
		Text:    []string{"A login link works once, within 15 minutes."},
		Buttons: []Link{{"Your account", accountPath}},
		Before:  "If you are not logged in, make a new one:",
		Command: "lodge open", Where: "on the host",
	}
}

// Continue is the page that leads to a login provider by itself.
func Continue(provider, at string) Page {
	return Page{
		Status: http.StatusOK, Title: "Opening " + provider,
		Text: []string{"The login goes on at the provider's page, which opens by itself."}, Next: at, Buttons: []Link{{"Open it", at}},
	}
}

// Failed shows an error that is meant for a person, with a link to try again.
func Failed(status int, err error, again string) Page {
	p := Page{Status: status, Kind: gateway.KindOf(err), Title: "That did not work", Buttons: []Link{{"Try again", again}}}
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
	}
	if len(a.Requests) > 0 {
		p.Sections = append(p.Sections, Section{Title: "Requests for access", Rows: requestRows(a.Requests)})
	}
	if len(a.Pages) > 0 {
		p.Sections = append(p.Sections, Section{Title: "Your pages", Rows: a.Pages})
	}
	p.Sections = append(p.Sections, passkeysOf(a), sessionsOf(a))
	return p
}

func passkeysOf(a Account) Section {
	s := Section{Title: "Passkeys", Text: []string{"A passkey logs you in with the fingerprint, the face or the PIN of a device."}}
	for _, k := range a.Passkeys {
		id := Field{"id", k.ID}
		s.Rows = append(s.Rows, Row{Title: k.Name, Note: k.Note, Forms: []Form{
			{Button: "Rename", Action: accountPath, Hidden: []Field{{"do", "rename-passkey"}, id}, Input: nameInput("Name of "+k.Name, k.Name, ""), Quiet: true},
			{Button: "Remove", Action: accountPath, Hidden: []Field{{"do", "remove-passkey"}, id}, Quiet: true},
		}})
	}
	switch {
	case len(a.Passkeys) >= gateway.MaxPasskeys:
	case a.Stale:
		s.Text = append(s.Text, "Adding one needs a login of the last 15 minutes.")
		s.Forms = []Form{{Button: "Log in again to add a passkey", Action: accountPath, Hidden: []Field{{"do", "log-in-again"}}, Quiet: true}}
	default:
		s.Forms = []Form{{Button: "Add a passkey", Passkey: "register", Input: nameInput("Name of the new passkey", "", "name, such as phone")}}
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
