package api

import (
	"context"

	"lodge/gateway"
)

// Grade is how a check ended.
type Grade string

// The grades.
const (
	Fine    Grade = "ok"
	Warning Grade = "warning" // it works now, or cannot be seen from here
	Broken  Grade = "broken"
)

// Finding is the result of one check of the host.
type Finding struct {
	Check string `json:"check"` // such as "dns" or "port 443"
	Grade Grade  `json:"grade"` // "ok", "warning" or "broken"
	Text  string `json:"text"`  // what was found
	Fix   string `json:"fix,omitempty"`
}

// Doctor examines what the host needs from outside: DNS records, ports, certificates.
type Doctor interface {
	// Examine returns the findings, in an order that suits a person, within some 10 s.
	Examine(ctx context.Context) []Finding
}

// Doctor examines the host.
func (s Session) Doctor(ctx context.Context) ([]Finding, error) {
	if err := s.allowed(verbDoctor); err != nil {
		return nil, err
	}
	return s.api.Doctor.Examine(ctx), nil
}

// MailDNS returns the DNS records that mail of a VM's own domains needs; for the empty name, those that mail of
// this host needs.
func (s Session) MailDNS(_ context.Context, name string) ([]gateway.DNSRecord, error) {
	if name == "" {
		if err := s.allowed(verbMailDNS); err != nil {
			return nil, err
		}
		return s.api.Mailbox.DNSRecords("")
	}
	m, err := s.vm(verbMailDNS, name)
	if err != nil {
		return nil, err
	}
	var all []gateway.DNSRecord
	for _, domain := range m.MailDomains() {
		records, err := s.api.Mailbox.DNSRecords(domain)
		if err != nil {
			return nil, err
		}
		all = append(all, records...)
	}
	if len(all) == 0 {
		return nil, gateway.Errorf(gateway.KindNotFound, "%s has no domain for mail", m.Name).
			WithHint("Add one: lodge domain add %s example.com --mail. Its own name needs the host's records alone: lodge mail dns", m.Name)
	}
	return all, nil
}
