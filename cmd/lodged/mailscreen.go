package main

import (
	"net/url"
	"strings"

	"lodge/gateway"
	"lodge/mail/screen"
	"lodge/mail/verdict"
)

// maxBlocklists are asked about each client, at once.
const maxBlocklists = 8

// mailScreen returns what keeps mail of strangers out.
func mailScreen(cfg Config) screen.Config {
	return screen.Config{
		Blocklists: cfg.MailBlocklists, Resolver: verdict.NewResolver("/etc/resolv.conf"),
		Greylist: cfg.MailGreylist, Rspamd: cfg.MailRspamd, Reject: cfg.MailRspamdReject,
	}
}

// checkMail checks the settings of mail that have files or rules of their own.
func (c Config) checkMail() error {
	if _, err := c.smarthost(); err != nil { // its file too
		return err
	}
	return c.checkScreen()
}

func (c Config) checkScreen() error {
	if len(c.MailBlocklists) > maxBlocklists {
		return gateway.Invalid("mail_blocklists has %d zones", len(c.MailBlocklists)).WithHint("Name at most %d.", maxBlocklists)
	}
	for _, zone := range c.MailBlocklists {
		if err := checkDomain(zone); err != nil {
			return gateway.Invalid("mail_blocklists has %q", zone).WithHint("Name zones of DNS in lower case, such as bl.example.org.")
		}
	}
	if c.MailRspamd == "" {
		if c.MailRspamdReject {
			return gateway.Invalid("mail_rspamd_reject needs mail_rspamd").WithHint("Give rspamd's URL, such as http://127.0.0.1:11333.")
		}
		return nil
	}
	u, err := url.Parse(c.MailRspamd)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return gateway.Invalid("mail_rspamd is %q", c.MailRspamd).WithHint("Give a URL without a path, such as http://127.0.0.1:11333.")
	}
	return nil
}
