package login

import (
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/names"
)

// Proof is what a request's secrets prove of its visitor. What is open ends with each of them.
type Proof struct {
	Session

	Pass     ID   // of a link or a token
	Visit    ID   // of what a browser has by a link
	BadToken bool // the request has a token that opens nothing here
}

// RestsOn reports whether the proof ends with a login, a session, a pass or a visit.
func (p Proof) RestsOn(id ID) bool {
	return id == p.Login || id == p.ID || id == p.Pass || id == p.Visit
}

// Visitor returns who makes a request, and what proves it. On a tap that is the VM, whatever the request
// carries; a token counts before a session.
func (h *Handler) Visitor(r *http.Request, rt names.Route) (access.Visitor, Proof) {
	if vm := gateway.VMFrom(r.Context()); vm.Known() {
		return access.Visitor{VM: vm}, Proof{}
	}
	if h.Policy.CrossSite(r, rt) {
		return access.Visitor{CrossSite: true}, Proof{}
	}
	if secret, ok := bearer(r.Header); ok {
		k, ok := h.token(r, rt, secret)
		if !ok {
			return access.Visitor{}, Proof{BadToken: true}
		}
		return access.Visitor{Token: k.Person, TokenID: passID(k.key.Hash)}, Proof{Session: Session{Until: k.Expires}, Pass: k.key.Hash}
	}
	session, _ := h.Session(r, rt)
	who, proof := access.Visitor{Person: session.Person, Mail: session.Mail}, Proof{Session: session}
	if rt.Share().Visibility != gateway.Link || h.Policy.Opens(who, rt) {
		return who, proof
	}
	if k, ok := h.visit(r, rt); ok {
		who.Link, proof.Pass, proof.Visit = k.By, k.Login, k.key.Hash
		if end := time.Unix(k.Until, 0); proof.Until.IsZero() || end.Before(proof.Until) {
			proof.Until = end
		}
	}
	return who, proof
}
