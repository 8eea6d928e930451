package api

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"lodge/gateway"
)

// Passes makes and removes what opens a port without a login; https.Server does.
type Passes interface {
	// NewPass returns what the holder needs: the URL of a link, or the text of a token.
	NewPass(ctx context.Context, p gateway.Pass) (held string, made gateway.Pass, err error)
	Passes(ctx context.Context, vm gateway.ID, kind gateway.PassKind) ([]gateway.Pass, error)
	// RemovePass ends what is open by it, too.
	RemovePass(ctx context.Context, vm gateway.ID, kind gateway.PassKind, id string) error
}

// How long passes live unless a request sets it, and how many browsers a link lets in.
const (
	DefaultTokenLife = 30 * 24 * time.Hour
	DefaultLinkLife  = 7 * 24 * time.Hour
)

// Pass is a link to a port or a bucket, or a token for scripts, as every face shows it.
type Pass struct {
	ID       string    `json:"id"`
	Port     uint16    `json:"port"`                // 0: the VM's own name
	Bucket   string    `json:"bucket,omitempty"`    // of a link to one, in place of the port
	AllPorts bool      `json:"all_ports,omitempty"` // of a token; then port does not count
	Label    string    `json:"label,omitempty"`
	By       string    `json:"by"`                 // the mail address of who made it
	Uses     int       `json:"uses,omitempty"`     // of a link: how many browsers it has let in
	MaxUses  int       `json:"max_uses,omitempty"` // of a link
	Expires  time.Time `json:"expires"`
	URL      string    `json:"url,omitempty"`   // of a link, when it is made
	Token    string    `json:"token,omitempty"` // of a token, when it is made
}

// PassSpec is the request for a pass. Zero values mean the defaults.
type PassSpec struct {
	Port     uint16        // of a link, and of a token unless AllPorts
	Bucket   string        // of a link, in place of the port
	AllPorts bool          // of a token
	Label    string        // at most 64 bytes
	MaxUses  int           // of a link: 1 to 1000
	Life     time.Duration // at most 366 days
}

// NewPass makes a link to a port whose visibility is link, or a token that opens what the caller may open.
func (s Session) NewPass(ctx context.Context, name string, kind gateway.PassKind, spec PassSpec) (Pass, error) {
	m, err := s.vm(verbNewPass, name)
	if err != nil {
		return Pass{}, err
	}
	if err := spec.check(m, kind); err != nil {
		return Pass{}, err
	}
	p := gateway.Pass{
		Kind: kind, VM: m.ID, Person: s.person().ID, Port: spec.Port, Bucket: spec.Bucket, AllPorts: spec.AllPorts, Label: spec.Label,
		MaxUses: spec.MaxUses, Expires: time.Now().Add(spec.Life),
	}
	held, made, err := s.api.Passes.NewPass(ctx, p)
	if err != nil {
		return Pass{}, err
	}
	s.audit(ctx, passEvent(kind, gateway.EventLinkMade, gateway.EventTokenMade), gateway.LogVM(m.Identity), slog.String("id", made.ID),
		slog.String("port", s.showPass(made).ports()), slog.Time("until", made.Expires))
	shown := s.showPass(made)
	if kind == gateway.LinkPass {
		shown.URL = held
	} else {
		shown.Token = held
	}
	return shown, nil
}

// checkLabel checks what a person notes about a link, a token or an address.
func checkLabel(label string) error {
	if len(label) > gateway.MaxLabelBytes || strings.ContainsFunc(label, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return gateway.Invalid("not a label: %.100q", label).WithHint("A label has at most %d bytes, on one line.", gateway.MaxLabelBytes)
	}
	return nil
}

func passEvent(kind gateway.PassKind, ofLink, ofToken gateway.AuditEvent) gateway.AuditEvent {
	if kind == gateway.LinkPass {
		return ofLink
	}
	return ofToken
}

// check completes a request with the defaults.
func (spec *PassSpec) check(m gateway.VM, kind gateway.PassKind) error {
	if err := checkPassKind(kind); err != nil {
		return err
	}
	switch {
	case spec.Life == 0 && kind == gateway.LinkPass:
		spec.Life = DefaultLinkLife
	case spec.Life == 0:
		spec.Life = DefaultTokenLife
	case spec.Life < time.Minute || spec.Life > gateway.MaxPassLife:
		return gateway.Invalid("a life of %s", spec.Life).WithHint("It is valid for a minute to 366 days, such as 30d.")
	}
	if err := checkLabel(spec.Label); err != nil {
		return err
	}
	if kind == gateway.TokenPass {
		spec.MaxUses, spec.Bucket = 0, ""
		return nil
	}
	if spec.MaxUses == 0 {
		spec.MaxUses = gateway.MaxPassUses
	}
	if spec.MaxUses < 1 || spec.MaxUses > gateway.MaxPassUses {
		return gateway.Invalid("a link for %d browsers", spec.MaxUses).WithHint("It lets in 1 to %d.", gateway.MaxPassUses)
	}
	spec.AllPorts = false
	if spec.Bucket != "" && spec.Port != 0 {
		return gateway.Invalid("a link opens a port or a bucket")
	}
	if m.ShareOf(spec.Bucket, spec.Port).Visibility != gateway.Link {
		return gateway.Errorf(gateway.KindConflict, "the port or bucket is not shared by link").
			WithHint("Share it: lodge share %s --port N link, or lodge share %s s3:BUCKET link", m.Name, m.Name)
	}
	return nil
}

func checkPassKind(kind gateway.PassKind) error {
	if kind != gateway.LinkPass && kind != gateway.TokenPass {
		return gateway.Invalid("not a kind of pass: %.100q", kind)
	}
	return nil
}

// ports names what a pass opens.
func (p Pass) ports() string {
	switch {
	case p.AllPorts:
		return "all"
	case p.Bucket != "":
		return "s3:" + p.Bucket
	}
	return fmt.Sprint(p.Port)
}

func (s Session) showPass(p gateway.Pass) Pass {
	return Pass{
		ID: p.ID, Port: p.Port, Bucket: p.Bucket, AllPorts: p.AllPorts, Label: p.Label, By: s.api.People.Name(p.Person), Uses: p.Uses, MaxUses: p.MaxUses, Expires: p.Expires,
	}
}

// ListPasses lists the links, or the tokens, of a VM; the first to expire is the first. Those of who is
// removed open nothing, and are not listed.
func (s Session) ListPasses(ctx context.Context, name string, kind gateway.PassKind) ([]Pass, error) {
	m, err := s.vm(verbListPasses, name)
	if err != nil {
		return nil, err
	}
	if err := checkPassKind(kind); err != nil {
		return nil, err
	}
	return s.passes(ctx, m, kind)
}

func (s Session) passes(ctx context.Context, m gateway.VM, kind gateway.PassKind) ([]Pass, error) {
	found, err := s.api.Passes.Passes(ctx, m.ID, kind)
	if err != nil {
		return nil, err
	}
	all := []Pass{} // an empty list is [] in JSON
	for _, p := range found {
		if shown := s.showPass(p); shown.By != "" {
			all = append(all, shown)
		}
	}
	return all, nil
}

// RemovePass removes a link or a token, and ends what is open by it.
func (s Session) RemovePass(ctx context.Context, name string, kind gateway.PassKind, id string) error {
	m, err := s.vm(verbRemovePass, name)
	if err != nil {
		return err
	}
	if err := checkPassKind(kind); err != nil {
		return err
	}
	return s.removePass(ctx, m, kind, id)
}

func (s Session) removePass(ctx context.Context, m gateway.VM, kind gateway.PassKind, id string) error {
	err := s.api.Passes.RemovePass(ctx, m.ID, kind, id)
	if err == nil {
		s.audit(ctx, passEvent(kind, gateway.EventLinkRemoved, gateway.EventTokenRemoved), gateway.LogVM(m.Identity), slog.String("id", id))
	}
	return err
}

// removeLinks removes the links to a port or a bucket.
func (s Session) removeLinks(ctx context.Context, m gateway.VM, to Share) error {
	links, err := s.api.Passes.Passes(ctx, m.ID, gateway.LinkPass)
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Port != to.Port || link.Bucket != to.Bucket {
			continue
		}
		if err := s.removePass(ctx, m, gateway.LinkPass, link.ID); err != nil && gateway.KindOf(err) != gateway.KindNotFound {
			return err
		}
	}
	return nil
}
