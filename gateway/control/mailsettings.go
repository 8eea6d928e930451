package control

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// MailAddressRequest is the body that makes an address of a VM for some senders.
type MailAddressRequest struct {
	From        []string `json:"from"` // who may write to it: 1 to 256 mail addresses and @domains
	Label       string   `json:"label,omitempty"`
	LifeSeconds int64    `json:"life_seconds,omitempty"` // 30 days by default, at most 366
}

func (s *Server) mailRoutes() []route {
	const vm = "/v1/vms/{name}"
	return []route{
		{"POST", vm + "/mail-removals", asked(s, api.Session.RemoveMail), gateway.MailRemoval{}, gateway.MailRemoved{}, "Removes messages from the host; copies in the VM stay. If one does not exist, or is not in the VM and `waiting` is not set, none is removed."},
		{"GET", "/v1/mail", query(s, api.Session.MailStates), nil, []gateway.MailboxState{}, "Shows how much mail there is for each VM that the caller may use, and for postmaster."},
		{"GET", vm + "/mail-search", s.searchMail, nil, []gateway.Message{}, "Returns the newest messages that fit all terms, each a query parameter `q`: a text, or `field:text` (docs/mail.md); at most `limit`."},
		{"GET", vm + "/mail-log", s.mailLog, nil, []gateway.MailEvent{}, "Returns what became of the VM's mail, the newest event first; at most `limit`."},
		{"POST", vm + "/mail-redeliveries", asked(s, api.Session.Redeliver), gateway.MailRedelivery{}, gateway.MailRedelivered{}, "Delivers messages into the VM again. If one does not exist, none is."},
		{"GET", "/v1/mail-queue", s.mailQueue, nil, []gateway.QueuedMail{}, "Lists the letters that wait to leave the host, the oldest first, at most `limit`; with `vm`, those of one VM."},
		{"POST", "/v1/mail-queue", s.changeMailQueue, gateway.QueueChange{}, gateway.QueueChanged{}, "Retries such letters now, or removes them without a report to their sender; with `vm`, those of one VM."},
		{"GET", "/v1/mail-dns", s.mailDNS, nil, []gateway.DNSRecord{}, "Returns the DNS records that mail of this host needs; with `vm`, those that mail of the VM's own domains needs."},
		{"GET", vm + "/mail-settings", named(s, api.Session.MailSettings), nil, api.MailSettings{}, "Returns the settings of the VM's mail."},
		{"PATCH", vm + "/mail-settings", s.setMail, api.MailChange{}, api.MailSettings{}, "Changes settings of the VM's mail, all or none."},
		{"POST", vm + "/mail-addresses", s.newMailAddress, MailAddressRequest{}, api.MailAddress{}, "Makes an address of the VM that only some may write to, for a time."},
		{"GET", vm + "/mail-addresses", named(s, api.Session.MailAddresses), nil, []api.MailAddress{}, "Lists these addresses; the first to expire is the first."},
		{"DELETE", vm + "/mail-addresses/{address}", s.removeMailAddress, nil, nil, "Removes such an address, which may be given without its domain. Its mail is refused from then on."},
	}
}

func (s *Server) mailDNS(w http.ResponseWriter, r *http.Request) error {
	records, err := s.as(r).MailDNS(r.Context(), r.URL.Query().Get("vm"))
	return answerOr(w, records, err)
}

func (s *Server) setMail(w http.ResponseWriter, r *http.Request) error {
	var change api.MailChange
	if err := decode(w, r, maxSpecBytes, &change); err != nil {
		return err
	}
	set, err := s.as(r).SetMail(r.Context(), r.PathValue("name"), change)
	return answerOr(w, set, err)
}

func (s *Server) newMailAddress(w http.ResponseWriter, r *http.Request) error {
	var in MailAddressRequest
	if err := decode(w, r, maxSpecBytes, &in); err != nil {
		return err
	}
	life, err := lifeOf(in.LifeSeconds)
	if err != nil {
		return err
	}
	made, err := s.as(r).NewMailAddress(r.Context(), r.PathValue("name"), api.MailAddressSpec{From: in.From, Label: in.Label, Life: life})
	return answerOr(w, made, err)
}

func (s *Server) removeMailAddress(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).RemoveMailAddress(r.Context(), r.PathValue("name"), r.PathValue("address")))
}

// RemoveMail removes messages from the host.
func (c *Client) RemoveMail(ctx context.Context, name string, r gateway.MailRemoval) (gateway.MailRemoved, error) {
	var removed gateway.MailRemoved
	err := c.onVM(ctx, http.MethodPost, name, "/mail-removals", r, &removed)
	return removed, err
}

// MailDNS returns the DNS records that mail of a VM's own domains needs; for the empty name, those of the host.
func (c *Client) MailDNS(ctx context.Context, name string) ([]gateway.DNSRecord, error) {
	path := "/v1/mail-dns"
	if name != "" {
		path += "?vm=" + url.QueryEscape(name)
	}
	var records []gateway.DNSRecord
	err := c.call(ctx, http.MethodGet, path, nil, &records)
	return records, err
}

// MailSettings returns the settings of a VM's mail.
func (c *Client) MailSettings(ctx context.Context, name string) (api.MailSettings, error) {
	var set api.MailSettings
	err := c.onVM(ctx, http.MethodGet, name, "/mail-settings", nil, &set)
	return set, err
}

// SetMail changes settings of a VM's mail.
func (c *Client) SetMail(ctx context.Context, name string, change api.MailChange) (api.MailSettings, error) {
	var set api.MailSettings
	err := c.onVM(ctx, http.MethodPatch, name, "/mail-settings", change, &set)
	return set, err
}

// NewMailAddress makes an address that only some may write to.
func (c *Client) NewMailAddress(ctx context.Context, name string, spec api.MailAddressSpec) (api.MailAddress, error) {
	in := MailAddressRequest{From: spec.From, Label: spec.Label, LifeSeconds: int64(spec.Life / time.Second)}
	var made api.MailAddress
	err := c.onVM(ctx, http.MethodPost, name, "/mail-addresses", in, &made)
	return made, err
}

// MailAddresses lists these addresses.
func (c *Client) MailAddresses(ctx context.Context, name string) ([]api.MailAddress, error) {
	var all []api.MailAddress
	err := c.onVM(ctx, http.MethodGet, name, "/mail-addresses", nil, &all)
	return all, err
}

// RemoveMailAddress removes one.
func (c *Client) RemoveMailAddress(ctx context.Context, name, address string) error {
	path, err := vmPath(name, "/mail-addresses/")
	if err != nil {
		return err
	}
	return c.onPath(ctx, http.MethodDelete, path, address, "", nil, nil)
}
