package control

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"lodge/gateway"
	"lodge/gateway/api"
)

// PersonRequest is the body that adds somebody or sets a role.
type PersonRequest struct {
	Role string `json:"role,omitempty"` // "owner", "member" or "guest"; without it, guest for who is new
}

// PersonLoginRequest is the body of a login link for somebody.
type PersonLoginRequest struct {
	VM     string `json:"vm,omitempty"`      // to which it leads; without it, the first one that they may open
	ByMail bool   `json:"by_mail,omitempty"` // send it to their address; a host that sends no mail there returns it
}

// TeamRequest is the body that changes a team.
type TeamRequest struct {
	Add    []string `json:"add,omitempty"`    // mail addresses
	Remove []string `json:"remove,omitempty"` // mail addresses
}

// PortRequest is the body that sets who may open a port.
type PortRequest struct {
	Visibility gateway.Visibility `json:"visibility"`     // "private", "people", "team", "link" or "public"
	With       []string           `json:"with,omitempty"` // for people: mail addresses and @domains; for team: names of teams
	Rev        uint64             `json:"rev,omitempty"`  // of Access; if that has changed since, the error is of kind conflict
}

// GrantRequest is the body that sets what a person or a team may do with a VM.
type GrantRequest struct {
	Level gateway.Level `json:"level"` // "view", "use" or "manage"
}

// LinkRequest is the body that makes a link to a port.
type LinkRequest struct {
	Port        uint16 `json:"port,omitempty"`   // whose visibility is link; without it, the one that the VM's own name leads to
	Bucket      string `json:"bucket,omitempty"` // whose visibility is link, in place of the port
	Label       string `json:"label,omitempty"`
	MaxUses     int    `json:"max_uses,omitempty"`     // browsers that it lets in, at most 1000, which is the default
	LifeSeconds int64  `json:"life_seconds,omitempty"` // 7 days by default, at most 366
}

// TokenRequest is the body that makes a token.
type TokenRequest struct {
	Port        *uint16 `json:"port,omitempty"` // 0: the one that the VM's own name leads to; without it, all ports
	Label       string  `json:"label,omitempty"`
	LifeSeconds int64   `json:"life_seconds,omitempty"` // 30 days by default, at most 366
}

func (s *Server) peopleRoutes() []route {
	const vm = "/v1/vms/{name}"
	return []route{
		{"GET", "/v1/people", query(s, api.Session.People), nil, []api.Person{}, "Lists everyone whom Lodge knows, ordered by address."},
		{"PUT", "/v1/people/{mail}", s.addPerson, PersonRequest{}, api.Person{}, "Adds somebody, or sets the role of who is there."},
		{"DELETE", "/v1/people/{mail}", s.removePerson, nil, nil, "Removes somebody with all rights, sessions and tokens, and ends what they have open. Who is added again is another person."},
		{"POST", "/v1/people/{mail}/login", s.personLogin, PersonLoginRequest{}, api.PersonLink{}, "Makes a link that logs somebody in, once, within 15 minutes."},
		{"GET", "/v1/teams", query(s, api.Session.Teams), nil, []api.Team{}, "Lists the teams, ordered by name."},
		{"PUT", "/v1/teams/{team}", s.changeTeam, TeamRequest{}, api.Team{}, "Adds people to a team and removes others. It makes a team that does not exist, and guests of those to add who are not known."},
		{"DELETE", "/v1/teams/{team}", s.removeTeam, nil, nil, "Removes a team. Its members lose what only the team gave them."},
		{"GET", "/v1/requests", query(s, api.Session.Requests), nil, []api.AccessRequest{}, "Lists the requests for access that nobody has answered, the oldest first."},
		{"POST", "/v1/requests/{id}/approve", s.approve, nil, api.AccessRequest{}, "Opens exactly the port of a request to exactly who asked, and removes the request. Somebody who is not known becomes a guest."},
		{"DELETE", "/v1/requests/{id}", s.deny, nil, nil, "Denies a request, and removes it."},
		{"GET", vm + "/access", named(s, api.Session.Access), nil, api.Access{}, "Lists all that opens the VM, and what a stranger sees at each port."},
		{"PUT", vm + "/grants/{who}", s.grant, GrantRequest{}, []api.Grant{}, "Sets what a person or a team may do with the VM. The answer has all grants."},
		{"DELETE", vm + "/grants/{who}", s.revoke, nil, []api.Grant{}, "Removes a grant. The answer has those that are left."},
		{"POST", vm + "/links", asked(s, newLink), LinkRequest{}, api.Pass{}, "Makes a link that opens a port of visibility link in a browser, without a login. The answer alone has its URL."},
		{"GET", vm + "/links", s.listPasses(gateway.LinkPass), nil, []api.Pass{}, "Lists the links."},
		{"DELETE", vm + "/links/{id}", s.removePass(gateway.LinkPass), nil, nil, "Removes a link, and ends what is open by it."},
		{"POST", vm + "/tokens", asked(s, newToken), TokenRequest{}, api.Pass{}, "Makes a token for scripts, which opens what the caller may open: `Authorization: Bearer`, or Basic as the password. The answer alone has it."},
		{"GET", vm + "/tokens", s.listPasses(gateway.TokenPass), nil, []api.Pass{}, "Lists the tokens."},
		{"DELETE", vm + "/tokens/{id}", s.removePass(gateway.TokenPass), nil, nil, "Removes a token, and ends what is open by it."},
	}
}

func (s *Server) addPerson(w http.ResponseWriter, r *http.Request) error {
	var in PersonRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	added, err := s.as(r).AddPerson(r.Context(), r.PathValue("mail"), in.Role)
	return answerOr(w, added, err)
}

func (s *Server) removePerson(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).RemovePerson(r.Context(), r.PathValue("mail")))
}

func (s *Server) personLogin(w http.ResponseWriter, r *http.Request) error {
	var in PersonLoginRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	link, err := s.as(r).PersonLink(r.Context(), r.PathValue("mail"), in.VM, in.ByMail)
	return answerOr(w, link, err)
}

func (s *Server) changeTeam(w http.ResponseWriter, r *http.Request) error {
	var in TeamRequest
	if err := decode(w, r, maxSpecBytes, &in); err != nil {
		return err
	}
	changed, err := s.as(r).ChangeTeam(r.Context(), r.PathValue("team"), in.Add, in.Remove)
	return answerOr(w, changed, err)
}

func (s *Server) removeTeam(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).RemoveTeam(r.Context(), r.PathValue("team")))
}

func (s *Server) grant(w http.ResponseWriter, r *http.Request) error {
	var in GrantRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	if in.Level == gateway.NoLevel {
		return gateway.Invalid("no level").WithHint("Choose view, use or manage; DELETE removes a grant.")
	}
	grants, err := s.as(r).Grant(r.Context(), r.PathValue("name"), api.Grant{Who: r.PathValue("who"), Level: in.Level})
	return answerOr(w, grants, err)
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) error {
	grants, err := s.as(r).Grant(r.Context(), r.PathValue("name"), api.Grant{Who: r.PathValue("who")})
	return answerOr(w, grants, err)
}

// share sets the visibility of the port in the path; 0 is the one that the VM's own name leads to.
func (s *Server) share(w http.ResponseWriter, r *http.Request) error {
	port := gateway.DefaultPort
	if text := r.PathValue("port"); text != "0" {
		var err error
		if port, err = gateway.ParsePort(text); err != nil {
			return err
		}
	}
	return s.shareAs(w, r, api.Share{Port: port})
}

func (s *Server) shareBucket(w http.ResponseWriter, r *http.Request) error {
	return s.shareAs(w, r, api.Share{Bucket: r.PathValue("bucket")})
}

// shareAs sets the visibility of a port or a bucket to what the body has.
func (s *Server) shareAs(w http.ResponseWriter, r *http.Request, share api.Share) error {
	var in PortRequest
	if err := decode(w, r, maxSpecBytes, &in); err != nil {
		return err
	}
	share.Visibility, share.With = in.Visibility, in.With
	vm, err := s.as(r).Share(r.Context(), r.PathValue("name"), api.Sharing{Share: share, Rev: in.Rev})
	return answerOr(w, vm, err)
}

// answerOr answers with v, or returns err.
func answerOr(w http.ResponseWriter, v any, err error) error {
	if err == nil {
		answer(w, http.StatusOK, v)
	}
	return err
}

// noContentOr answers without a body, or returns err.
func noContentOr(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// People lists everyone, ordered by address.
func (c *Client) People(ctx context.Context) ([]api.Person, error) {
	var all []api.Person
	err := c.call(ctx, http.MethodGet, "/v1/people", nil, &all)
	return all, err
}

// AddPerson adds somebody, or sets the role of who is there.
func (c *Client) AddPerson(ctx context.Context, mail, role string) (api.Person, error) {
	var added api.Person
	return added, c.onPath(ctx, http.MethodPut, "/v1/people/", mail, "", PersonRequest{Role: role}, &added)
}

// RemovePerson removes somebody.
func (c *Client) RemovePerson(ctx context.Context, mail string) error {
	return c.onPath(ctx, http.MethodDelete, "/v1/people/", mail, "", nil, nil)
}

// PersonLink makes a link that logs somebody in, once, and sends it to them if asked; the empty VM is the first one
// that they may open.
func (c *Client) PersonLink(ctx context.Context, mail, vm string, byMail bool) (api.PersonLink, error) {
	var link api.PersonLink
	err := c.onPath(ctx, http.MethodPost, "/v1/people/", mail, "/login", PersonLoginRequest{VM: vm, ByMail: byMail}, &link)
	return link, err
}

// Teams lists the teams, ordered by name.
func (c *Client) Teams(ctx context.Context) ([]api.Team, error) {
	var all []api.Team
	err := c.call(ctx, http.MethodGet, "/v1/teams", nil, &all)
	return all, err
}

// ChangeTeam adds people to a team and removes others.
func (c *Client) ChangeTeam(ctx context.Context, name string, add, remove []string) (api.Team, error) {
	var changed api.Team
	return changed, c.onPath(ctx, http.MethodPut, "/v1/teams/", name, "", TeamRequest{Add: add, Remove: remove}, &changed)
}

// RemoveTeam removes a team.
func (c *Client) RemoveTeam(ctx context.Context, name string) error {
	return c.onPath(ctx, http.MethodDelete, "/v1/teams/", name, "", nil, nil)
}

// Access lists all that opens a VM.
func (c *Client) Access(ctx context.Context, name string) (api.Access, error) {
	var access api.Access
	err := c.onVM(ctx, http.MethodGet, name, "/access", nil, &access)
	return access, err
}

// Share sets who may open a port or a bucket; the answer's URL is that one's.
func (c *Client) Share(ctx context.Context, name string, to api.Sharing) (api.VM, error) {
	in := PortRequest{Visibility: to.Visibility, With: to.With, Rev: to.Rev}
	if to.Bucket == "" {
		return c.infoOf(ctx, http.MethodPut, name, "/ports/"+strconv.Itoa(int(to.Port)), in)
	}
	path, err := vmPath(name, "/buckets/")
	if err != nil {
		return api.VM{}, err
	}
	var vm api.VM
	return vm, c.onPath(ctx, http.MethodPut, path, to.Bucket, "", in, &vm)
}

// Grant sets what a person or a team may do with a VM; gateway.NoLevel removes the grant.
func (c *Client) Grant(ctx context.Context, name string, to api.Grant) ([]api.Grant, error) {
	vm, err := vmPath(name, "/grants/")
	if err != nil {
		return nil, err
	}
	var all []api.Grant
	if to.Level == gateway.NoLevel {
		return all, c.onPath(ctx, http.MethodDelete, vm, to.Who, "", nil, &all)
	}
	return all, c.onPath(ctx, http.MethodPut, vm, to.Who, "", GrantRequest{Level: to.Level}, &all)
}

// onPath calls a verb whose path has a text of the caller's.
func (c *Client) onPath(ctx context.Context, method, before, text, after string, in, out any) error {
	if text == "" || text == "." || text == ".." { // they would make another path
		return gateway.Invalid("not a mail address or a name: %q", text)
	}
	return c.call(ctx, method, before+url.PathEscape(text)+after, in, out)
}
