package login

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// passData is what the store has of a Pass beside its VM, its person and its end.
type passData struct {
	Port     uint16 `json:"port,omitempty"`
	Bucket   string `json:"bucket,omitempty"`
	AllPorts bool   `json:"all,omitempty"`
	Label    string `json:"label,omitempty"`
	Uses     int    `json:"uses,omitempty"`
	MaxUses  int    `json:"max,omitempty"`
}

// passOf returns the Pass that a stored secret is.
func passOf(key gateway.SecretKey, s gateway.Secret) (gateway.Pass, error) {
	var d passData
	if err := json.Unmarshal([]byte(s.Data), &d); err != nil {
		return gateway.Pass{}, err
	}
	return gateway.Pass{
		ID: passID(key.Hash), Kind: gateway.PassKind(key.Kind), VM: s.VM, Person: s.Person, Port: d.Port, Bucket: d.Bucket, AllPorts: d.AllPorts, Label: d.Label,
		Uses: d.Uses, MaxUses: d.MaxUses, Expires: s.Expires,
	}, nil
}

func passID(hash [32]byte) string { return hex.EncodeToString(hash[:8]) }

func encodePass(p gateway.Pass) (string, error) {
	data, err := json.Marshal(passData{Port: p.Port, Bucket: p.Bucket, AllPorts: p.AllPorts, Label: p.Label, Uses: p.Uses, MaxUses: p.MaxUses})
	return string(data), err
}

// NewPass makes a pass, whose fields are checked, and returns what its holder needs: the URL of a link, or
// the text of a token. That is stored nowhere. KindConflict: the VM, or the person, has too many.
func (h *Handler) NewPass(ctx context.Context, vm gateway.VM, p gateway.Pass) (held string, made gateway.Pass, err error) {
	now := time.Now()
	for limit, of := range map[int]gateway.SecretsOf{
		gateway.MaxPassesOfVM:      {Kind: string(p.Kind), VM: vm.ID},
		gateway.MaxSecretsOfPerson: {Kind: string(p.Kind), Person: p.Person},
	} {
		have, err := h.Store.ListSecrets(ctx, of, now)
		if err != nil {
			return "", made, err
		}
		if len(have) >= limit {
			return "", made, gateway.Errorf(gateway.KindConflict, "there are %d of them already, which is the limit", limit).
				WithHint("lodge share %s lists them; remove one that nobody needs.", vm.Name)
		}
	}
	data, err := encodePass(p)
	if err != nil {
		return "", made, err
	}
	secret := browser.NewSecret()
	hash, _ := browser.Hash(secret) // NewSecret made it
	key := gateway.SecretKey{Kind: string(p.Kind), Hash: hash}
	kept := gateway.Secret{VM: vm.ID, Person: p.Person, Data: data, Expires: p.Expires.Truncate(time.Second)}
	if err := h.put(ctx, key, kept); err != nil {
		return "", made, err
	}
	if made, err = passOf(key, kept); err != nil {
		return "", made, err
	}
	if p.Kind == gateway.TokenPass {
		return tokenPrefix + secret, made, nil
	}
	at := h.Policy.Zone.URL(vm.Name, p.Port)
	if p.Bucket != "" {
		at = names.Origin(h.Policy.Zone.BucketHost(vm.Name, p.Bucket), h.Policy.Zone.Port)
	}
	return at + linkPath + "?secret=" + secret, made, nil
}

// Passes returns those of a VM that have not expired; the first to expire is the first.
func (h *Handler) Passes(ctx context.Context, vm gateway.ID, kind gateway.PassKind) ([]gateway.Pass, error) {
	found, err := h.Store.ListSecrets(ctx, gateway.SecretsOf{Kind: string(kind), VM: vm}, time.Now())
	if err != nil {
		return nil, err
	}
	var all []gateway.Pass
	for key, secret := range found {
		p, err := passOf(key, secret)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b gateway.Pass) int { return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// RemovePass removes a pass of a VM, and ends what is open by it. A missing one is KindNotFound.
func (h *Handler) RemovePass(ctx context.Context, vm gateway.ID, kind gateway.PassKind, id string) error {
	found, err := h.Store.ListSecrets(ctx, gateway.SecretsOf{Kind: string(kind), VM: vm}, time.Now())
	if err != nil {
		return err
	}
	for key := range found {
		if passID(key.Hash) != id {
			continue
		}
		if _, err := h.Store.ChangeSecret(ctx, key, time.Now(), nil); err != nil {
			return err
		}
		h.ended(vm, key.Hash)
		return nil
	}
	return gateway.Errorf(gateway.KindNotFound, "there is no such link or token: %.100q", id).WithHint("lodge share VM lists them with their IDs.")
}

// linkPage shows a link to a port, and whether it opens something. It changes nothing.
func (h *Handler) linkPage(w http.ResponseWriter, r *http.Request, rt names.Route, secret string) {
	link, err := h.sessions.peek(r.Context(), string(gateway.LinkPass), secret)
	if err == nil {
		err = h.countUse(&link, rt) // of a copy
	}
	if err != nil {
		h.refuse(w, r, rt, pages.LinkEnded(), err)
		return
	}
	h.Pages.Render(w, r, pages.LinkButton(rt, secret))
}

// useLink counts a use of a link to a port and lets the browser in, at this name alone. Only the form's
// POST does that: see useLoginLink.
func (h *Handler) useLink(w http.ResponseWriter, r *http.Request, rt names.Route) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if h.Policy.CrossSite(r, rt) {
		h.Pages.Render(w, r, pages.CrossSite(rt))
		return
	}
	hash, ok := browser.Hash(r.PostFormValue("token"))
	if !ok {
		h.refuse(w, r, rt, pages.LinkEnded(), nil)
		return
	}
	link, err := h.Store.ChangeSecret(r.Context(), gateway.SecretKey{Kind: string(gateway.LinkPass), Hash: hash}, time.Now(), func(s *gateway.Secret) (bool, error) {
		return true, h.countUse(s, rt)
	})
	if err != nil {
		h.refuse(w, r, rt, pages.LinkEnded(), err)
		return
	}
	life := time.Until(link.Expires).Round(time.Second)
	visit, err := h.issue(r.Context(), kindVisit, rt.VM.ID, link.Person, grant{Host: rt.Host, Login: hash, By: link.Person, Until: link.Expires.Unix()}, life)
	if err != nil {
		h.refuse(w, r, rt, pages.InternalError(), err)
		return
	}
	clearStorage(w, rt)
	browser.SetCookie(w, visitCookie, visit, life)
	gateway.Audit(r.Context(), h.Logger, gateway.EventLinkUsed, gateway.LogVM(rt.VM.Identity), slog.String("id", passID(hash)),
		slog.String("host", rt.Host), slog.String("remote", r.RemoteAddr))
	browser.Redirect(w, http.StatusSeeOther, "/")
}

// countUse counts a use of a link. The error is KindNotFound where it opens nothing, or no more.
func (h *Handler) countUse(s *gateway.Secret, rt names.Route) error {
	p, err := passOf(gateway.SecretKey{Kind: string(gateway.LinkPass)}, *s)
	if err != nil {
		return err
	}
	if s.VM != rt.VM.ID || p.Port != rt.Port || p.Bucket != rt.Bucket || p.Uses >= p.MaxUses || !h.Policy.LinkOpens(s.Person, rt) {
		return errNoSecret()
	}
	p.Uses++
	s.Data, err = encodePass(p)
	return err
}

// visit returns the link by which the request's browser was let in here.
func (h *Handler) visit(r *http.Request, rt names.Route) (k known, ok bool) {
	for secret := range cookies(r.Header, visitCookie, maxSessionCookies) {
		k, err := h.sessions.look(r.Context(), kindVisit, secret)
		if err == nil && k.VM == rt.VM.ID && k.Host == rt.Host {
			return k, true
		}
	}
	return known{}, false
}
