package api

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
)

// MailSettings are the settings of a VM's mail as every face shows them.
type MailSettings struct {
	VM             string        `json:"vm"`
	Domain         string        `json:"domain"`          // mail to anything@ this goes to the VM
	OwnDomains     []string      `json:"own_domains"`     // custom domains that are for mail too: as Domain
	Receive        bool          `json:"receive"`         // false: all mail is refused
	QuotaBytes     int64         `json:"quota_bytes"`     // of the mailbox on the host; 0: only the host's own limits
	KeepSeconds    int64         `json:"keep_seconds"`    // mail is removed after it; 0: never
	Wake           bool          `json:"wake"`            // a new message starts the stopped VM
	Route          string        `json:"route"`           // the way into the VM: auto, maildir, smtp, lmtp, http://PORT/PATH or s3://BUCKET/PREFIX
	RefuseRejected bool          `json:"refuse_rejected"` // refuse what the DMARC policy of its From rejects
	SendTo         string        `json:"send_to"`         // to whom the VM may send: known (its people, and who wrote to it), anyone or nobody
	AllowFrom      []string      `json:"allow_from"`      // senders: mail addresses and @domains; empty: anyone
	Aliases        []string      `json:"aliases"`         // further names, "shop", whose mail is the VM's, and addresses at the host's domain, "sales@"
	Addresses      []MailAddress `json:"addresses"`       // that only some may write to, for a time
}

// MailChange is the request to change settings of a VM's mail. What is absent stays as it is.
type MailChange struct {
	Receive        *bool     `json:"receive,omitempty"`         // false: all mail is refused
	QuotaBytes     *int64    `json:"quota_bytes,omitempty"`     // of the mailbox on the host, 1 MiB to 1 PiB; 0: only the host's own limits
	KeepSeconds    *int64    `json:"keep_seconds,omitempty"`    // after which mail is removed, an hour to 3650 days; 0: never
	Wake           *bool     `json:"wake,omitempty"`            // whether a new message starts the stopped VM
	Route          *string   `json:"route,omitempty"`           // auto, maildir, smtp (port 25 of the VM), lmtp (port 24), http://PORT/PATH (a POST) or s3://BUCKET/PREFIX (an object)
	RefuseRejected *bool     `json:"refuse_rejected,omitempty"` // whether to refuse what the DMARC policy of its From rejects
	SendTo         *string   `json:"send_to,omitempty"`         // to whom the VM may send: known, anyone or nobody; an owner's alone
	AllowFrom      *[]string `json:"allow_from,omitempty"`      // senders in place of those before: at most 256 mail addresses and @domains; the empty list: anyone
	AddAliases     []string  `json:"add_aliases,omitempty"`     // names as VMs have, such as "shop"; of owners also addresses at the host's domain, such as "sales@"
	RemoveAliases  []string  `json:"remove_aliases,omitempty"`
}

// MailSettings returns the settings of a VM's mail.
func (s Session) MailSettings(_ context.Context, name string) (MailSettings, error) {
	m, err := s.vm(verbMailSettings, name)
	if err != nil {
		return MailSettings{}, err
	}
	return s.showMail(m), nil
}

func (s Session) showMail(m gateway.VM) MailSettings {
	route := m.Mail.Route
	if route == "" {
		route = gateway.MailRouteAuto
	}
	return MailSettings{
		Route: route, VM: m.Name, Domain: m.Name + "." + s.api.Domain, OwnDomains: m.MailDomains(), Receive: !m.Mail.Off, QuotaBytes: m.Mail.QuotaBytes,
		KeepSeconds: int64(m.Mail.Keep / time.Second), Wake: m.Mail.Wake, RefuseRejected: m.Mail.RefuseRejected,
		SendTo:    m.Mail.SendTo.String(),
		AllowFrom: append([]string{}, m.Mail.AllowFrom...), Aliases: append([]string{}, m.Mail.Aliases...), // an empty list is [] in JSON
		Addresses: s.addresses(m, time.Now()),
	}
}

// SetMail changes settings of a VM's mail, all or none. An address at the host's own domain is for owners
// to give. An alias or a name that another VM has is KindTaken.
func (s Session) SetMail(ctx context.Context, name string, change MailChange) (MailSettings, error) {
	m, err := s.vm(verbSetMail, name)
	if err != nil {
		return MailSettings{}, err
	}
	if reflect.ValueOf(change).IsZero() {
		return MailSettings{}, gateway.Invalid("there is no setting to change").WithHint("An example: lodge mail set %s --wake on", m.Name)
	}
	if err := change.check(); err != nil {
		return MailSettings{}, err
	}
	if change.SendTo != nil && !s.owns() {
		return MailSettings{}, gateway.Errorf(gateway.KindDenied, "only an owner of this host may set to whom %s sends mail", m.Name).
			WithHint("Mail that annoys strangers falls back on the whole host.")
	}
	if change.AddAliases, err = s.aliases(change.AddAliases); err != nil {
		return MailSettings{}, err
	}
	if change.AllowFrom != nil {
		senders, err := parseSenders(*change.AllowFrom)
		if err != nil {
			return MailSettings{}, err
		}
		change.AllowFrom = &senders
	}
	m, err = s.update(ctx, verbSetMail, m.ID, func(m *gateway.VM) error { return s.changeMail(m, change) })
	if err != nil {
		return MailSettings{}, err
	}
	s.auditMail(ctx, m, change)
	return s.showMail(m), nil
}

// check checks the numbers and words.
func (c MailChange) check() error {
	if c.SendTo != nil {
		if _, err := gateway.ParseSendTo(*c.SendTo); err != nil {
			return err
		}
	}
	if c.QuotaBytes != nil && *c.QuotaBytes != 0 && (*c.QuotaBytes < gateway.MinMailQuota || *c.QuotaBytes > gateway.MaxMailQuota) {
		return gateway.Invalid("a quota of %d bytes", *c.QuotaBytes).WithHint("A quota is 1MiB to 1PiB, such as 2GiB, or none.")
	}
	if c.Route != nil {
		if _, err := gateway.ParseMailRoute(*c.Route); err != nil {
			return err
		}
	}
	const least, most = int64(gateway.MinMailKeep / time.Second), int64(gateway.MaxMailKeep / time.Second)
	if c.KeepSeconds != nil && *c.KeepSeconds != 0 && (*c.KeepSeconds < least || *c.KeepSeconds > most) {
		return gateway.Invalid("mail cannot be kept for %d seconds", *c.KeepSeconds).WithHint("It is kept for 1h to 3650d, such as 90d, or forever.")
	}
	return nil
}

// changeMail changes the record of a VM. The lists are made anew: other copies of the record have them.
func (s Session) changeMail(m *gateway.VM, c MailChange) error {
	if m.Desired == gateway.Removed {
		return gateway.NotFound(m.Name)
	}
	to := &m.Mail
	if c.Receive != nil {
		to.Off = !*c.Receive
	}
	if c.QuotaBytes != nil {
		to.QuotaBytes = *c.QuotaBytes
	}
	if c.KeepSeconds != nil {
		to.Keep = time.Duration(*c.KeepSeconds) * time.Second
	}
	if c.Wake != nil {
		to.Wake = *c.Wake
	}
	if c.RefuseRejected != nil {
		to.RefuseRejected = *c.RefuseRejected
	}
	if c.Route != nil {
		to.Route = plainRoute(*c.Route)
	}
	if c.AllowFrom != nil {
		to.AllowFrom = *c.AllowFrom
	}
	if c.SendTo != nil {
		to.SendTo, _ = gateway.ParseSendTo(*c.SendTo) // check has checked it
	}
	var err error
	if to.Aliases, err = s.changeAliases(*m, c); err != nil {
		return err
	}
	return checkSenders(*m)
}

// plainRoute returns a route that was checked as records have it.
func plainRoute(text string) string {
	r, err := gateway.ParseMailRoute(text)
	if err != nil || text == gateway.MailRouteAuto {
		return ""
	}
	return r.String()
}

// changeAliases returns the aliases of a VM after a change. One that is to be removed must be there: else
// it was mistyped.
func (s Session) changeAliases(m gateway.VM, c MailChange) ([]string, error) {
	all := slices.Clone(m.Mail.Aliases)
	for _, alias := range c.RemoveAliases {
		i := slices.Index(all, s.plainAlias(alias))
		if i < 0 {
			return nil, gateway.Errorf(gateway.KindNotFound, "%s has no mail alias %.100q", m.Name, alias).WithHint("lodge mail set %s shows those that it has.", m.Name)
		}
		all = slices.Delete(all, i, i+1)
	}
	for _, alias := range c.AddAliases {
		if slices.Contains(all, alias) {
			continue
		}
		if strings.HasSuffix(alias, "@") && !s.owns() {
			return nil, gateway.Errorf(gateway.KindDenied, "only an owner of this host may give a VM the address %s%s", alias, s.api.Domain).
				WithHint("A name needs no owner: with the alias shop, mail to anything@shop.%s is the VM's.", s.api.Domain)
		}
		all = append(all, alias)
	}
	slices.Sort(all)
	return all, nil
}

// aliases checks aliases that are to be added, and returns them as records have them.
func (s Session) aliases(texts []string) ([]string, error) {
	var all []string
	for _, text := range texts {
		alias := s.plainAlias(text)
		if err := gateway.CheckAlias(alias); err != nil {
			return nil, err
		}
		all = append(all, alias)
	}
	return all, nil
}

// plainAlias returns an alias without the host's domain: both "sales@" and the whole address are one.
func (s Session) plainAlias(text string) string {
	if local, ok := strings.CutSuffix(text, "@"+s.api.Domain); ok {
		return local + "@"
	}
	return text
}

// parseSenders returns senders as records have them: in one form, ordered, none twice.
func parseSenders(texts []string) ([]string, error) {
	if len(texts) > gateway.MaxMailAllowed {
		return nil, gateway.Invalid("%d senders; at most %d are possible", len(texts), gateway.MaxMailAllowed).
			WithHint("@example.org stands for all addresses there.")
	}
	var all []string
	for _, text := range texts {
		sender, err := parseSender(text)
		if err != nil {
			return nil, err
		}
		all = append(all, sender)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func parseSender(text string) (string, error) {
	if domain, ok := strings.CutPrefix(text, "@"); ok {
		domain, err := people.ParseMailDomain(domain)
		return "@" + domain, err
	}
	return people.ParseAddress(text)
}

// checkSenders bounds what one VM's record has of senders.
func checkSenders(m gateway.VM) error {
	n := len(m.Mail.AllowFrom)
	for _, a := range m.Mail.Addresses {
		n += len(a.From)
	}
	if n > gateway.MaxMailSenders {
		return gateway.Errorf(gateway.KindConflict, "the mail of %s names %d senders; the limit is %d", m.Name, n, gateway.MaxMailSenders).
			WithHint("Name an @domain in place of its addresses, or remove an address: lodge mail address ls %s", m.Name)
	}
	return nil
}

func (s Session) auditMail(ctx context.Context, m gateway.VM, c MailChange) {
	attrs := []slog.Attr{gateway.LogVM(m.Identity)}
	if c.AllowFrom != nil {
		attrs = append(attrs, slog.String("with", strings.Join(*c.AllowFrom, ",")))
	}
	if c.Route != nil {
		attrs = append(attrs, slog.String("to", *c.Route))
	}
	if c.SendTo != nil {
		attrs = append(attrs, slog.String("to", *c.SendTo))
	}
	if len(c.AddAliases)+len(c.RemoveAliases) > 0 {
		attrs = append(attrs, slog.String("added", strings.Join(c.AddAliases, ",")), slog.String("removed", strings.Join(c.RemoveAliases, ",")))
	}
	s.audit(ctx, gateway.EventMailSet, attrs...)
}
