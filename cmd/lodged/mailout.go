package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"lodge/gateway"
	"lodge/https/acme"
	"lodge/mail"
	"lodge/mail/relay"
	"lodge/mail/verdict"
)

// mailOut returns what sending mail needs; nil if none is sent.
func mailOut(cfg Config) (*mail.Out, error) {
	if !cfg.MailOut {
		return nil, nil
	}
	smarthost, err := cfg.smarthost()
	if err != nil {
		return nil, err
	}
	return &mail.Out{
		Dir: cfg.path("mail-out"), Resolver: verdict.NewResolver("/etc/resolv.conf"), Smarthost: smarthost, Refuse: []netip.Prefix{cfg.GuestNet},
		ServesKeys: cfg.answersDNS(),
	}, nil
}

// answersDNS reports whether the name server of challenge = "responder" runs.
func (c Config) answersDNS() bool { return c.ACME != nil && c.ACME.Challenge == "responder" }

// publishKeys makes the name server of the domain, if there is one, answer for _domainkey.<domain>
// too, where the keys of the mail that leaves are.
func publishKeys(r *acme.Responder, m *mail.Server, cfg Config) error {
	if r == nil || !cfg.MailOut {
		return nil
	}
	all, err := m.DNSRecords("")
	if err != nil {
		return fmt.Errorf("records of mail: %w", err)
	}
	zone := "_domainkey." + cfg.Domain
	var keys []string
	for _, one := range all {
		if strings.HasSuffix(one.Name, "."+zone+".") {
			keys = append(keys, one.Name+" 3600 IN "+one.Type+" "+one.Value)
		}
	}
	if err := r.Publish(zone, keys...); err != nil {
		return fmt.Errorf("publish keys of mail: %w", err)
	}
	return nil
}

// smarthost reads the settings of the smarthost, its password too, so that a missing file fails at the
// start; nil without one.
func (c Config) smarthost() (*relay.Smarthost, error) {
	if c.MailSmarthost == "" {
		if c.MailSmarthostUser != "" || c.MailSmarthostPasswordFile != "" {
			return nil, gateway.Invalid("mail_smarthost_user and mail_smarthost_password_file need mail_smarthost").
				WithHint("Name the server too, such as smtp.example.com:587.")
		}
		return nil, nil
	}
	host, port, err := net.SplitHostPort(c.MailSmarthost)
	if err != nil || host == "" || port == "" || port == "465" {
		return nil, gateway.Invalid("mail_smarthost is %q", c.MailSmarthost).
			WithHint("Give a name and a port where the server offers STARTTLS, such as smtp.example.com:587.")
	}
	s := &relay.Smarthost{Addr: c.MailSmarthost, User: c.MailSmarthostUser}
	if (c.MailSmarthostUser == "") != (c.MailSmarthostPasswordFile == "") {
		return nil, gateway.Invalid("only one of mail_smarthost_user and mail_smarthost_password_file is set").WithHint("Set both, or none.")
	}
	if c.MailSmarthostPasswordFile == "" {
		return s, nil
	}
	password, err := os.ReadFile(c.MailSmarthostPasswordFile)
	if err != nil {
		return nil, gateway.Invalid("mail_smarthost_password_file: %v", err).WithHint("Name a file that lodged can read.")
	}
	if s.Password = strings.TrimRight(string(password), "\r\n"); s.Password == "" {
		return nil, gateway.Invalid("%s is empty", c.MailSmarthostPasswordFile).WithHint("Write the password into it.")
	}
	return s, nil
}
