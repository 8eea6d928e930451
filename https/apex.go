package https

import (
	"context"
	"slices"

	"lodge/gateway"
	"lodge/https/login"
	"lodge/https/login/apex"
)

// newApex returns what serves logins at the domain itself.
func (s *Server) newApex() (*apex.Handler, error) {
	return apex.New(apex.Config{
		Policy: s.policy, Login: s.login, Sessions: s.Sessions, Passkeys: s.Passkeys, Providers: s.LoginProviders,
		Admits: s.sharedWithDomain, Requests: s.Requests, Answers: s.Verbs, Asked: s.Asked, VMs: s.Directory.All, Pages: s.pages, Logger: s.Logger,
		Ended: func(id login.ID) { s.live.endLogin(gateway.ID{}, id) },
		EndedAll: func(person gateway.Principal) {
			s.live.endWhere(gateway.ID{}, func(q *liveRequest) bool { return q.who.Person == person })
		},
	})
}

// sharedWithDomain reports whether a port of a VM is open to all who have a mail address of a domain.
func (s *Server) sharedWithDomain(domain string) bool {
	return slices.ContainsFunc(s.Directory.All(), func(m gateway.VM) bool {
		return m.Desired != gateway.Removed && m.SharedWithDomain(domain)
	})
}

// apexLogins is login.Apex: the handlers of VMs' names and of the domain need each other.
type apexLogins struct{ s *Server }

func (a apexLogins) Lasts(ctx context.Context, person gateway.Principal, id login.ID) error {
	return a.s.apex.Lasts(ctx, person, id)
}

func (a apexLogins) End(ctx context.Context, person gateway.Principal, id login.ID) error {
	return a.s.apex.End(ctx, person, id)
}
