package pages

import "net/http"

// Request is a request for access as who may answer it sees it.
type Request struct {
	ID      string `json:"id"`
	Address string `json:"address"` // of who asks
	Host    string `json:"host"`    // the name that was to be opened
	Note    string `json:"note"`    // when and where the request was made
	Proven  bool   `json:"proven"`  // they have logged in with the address
}

// Ask is the page at which somebody asks for access to a host name, to open a URL there. Who is logged in
// has an address; others type one, and login is where they log in first.
func Ask(host, to, address, login string) Page {
	p := Page{
		Status: http.StatusOK, Title: "Ask for access",
		Text: []string{
			"To " + host + ".",
			"If there is such a page, its owner sees that " + address + " would like to open it.",
		},
		Forms: []Form{{Button: "Ask for access", Action: AskPath, Hidden: []Field{{"to", to}}}},
	}
	if address == "" {
		p.Text[1] = "If there is such a page, its owner sees your mail address, and that you have not proved it. Log in first if you can."
		p.Forms[0].Input = &Input{Name: "address", Label: "Your mail address", Type: "email", Placeholder: "you@example.com", Max: 254}
		p.Buttons = []Link{{"Log in first", login}}
	}
	return p
}

// Asked answers a request for access. It is the same whether a VM has the name or not. The URL open logs in
// and opens the page.
func Asked(open string, proven bool) Page {
	p := Page{
		Status: http.StatusOK, Title: "Your request is recorded",
		Text:    []string{"If there is such a page, its owner sees your request for 7 days. Once it is approved, the page opens."},
		Buttons: []Link{{"Open the page", open}},
	}
	if !proven {
		p.Text = append(p.Text, "You then need a way to log in: ask the owner for a login link.")
	}
	return p
}

// Requests is the page at which who may manage VMs answers requests.
func Requests(all []Request) Page {
	p := Page{Status: http.StatusOK, Title: "Requests for access"}
	if len(all) == 0 {
		p.Buttons = []Link{{"Your account", accountPath}}
		p.Text = []string{"There is none that you may answer: it was answered, or has expired."}
		return p
	}
	p.Text = []string{"An approval opens exactly that page, to exactly that person. To end it, share the page again without them: lodge share --help."}
	p.Sections = []Section{{Title: "", Rows: requestRows(all)}}
	return p
}

func requestRows(all []Request) (rows []Row) {
	for _, q := range all {
		note := q.Note
		if !q.Proven {
			note += "; the address is not proved: it may be anyone who typed it"
		}
		answer := func(button, do string, quiet bool) Form {
			return Form{Button: button, Action: AnswerPath, Hidden: []Field{{"do", do}, {"id", q.ID}}, Quiet: quiet}
		}
		rows = append(rows, Row{
			Title: q.Address + " asks for " + q.Host, Note: note, Forms: []Form{answer("Approve", "approve", false), answer("Deny", "deny", true)},
		})
	}
	return rows
}

// Approved answers who has approved a request. vm is the VM's name.
func Approved(q Request, vm string) Page {
	p := Page{
		Status: http.StatusOK, Title: "Access approved",
		Text: []string{q.Address + " may open " + q.Host + ", and nothing else by this."}, Buttons: []Link{{"Your account", accountPath}},
	}
	if !q.Proven {
		p.Before, p.Where = "To log them in, send them a link that this makes:", "on the host"
		p.Command = "lodge person link " + q.Address + " " + vm
	}
	return p
}

// Denied answers who has denied a request.
func Denied() Page {
	return Page{
		Status: http.StatusOK, Title: "The request is denied", Text: []string{"Who asked gets no notice."}, Buttons: []Link{{"Your account", accountPath}},
	}
}
