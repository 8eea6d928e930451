package gateway

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"
)

// Limits of MailSettings.
const (
	MaxMailAllowed   = 256 // entries of AllowFrom, and of the From of one MailAddress
	MaxMailAliases   = 32
	MaxMailAddresses = 100
	MaxMailSenders   = 1024                 // entries of AllowFrom and of all addresses together
	MaxMailLife      = 366 * 24 * time.Hour // of a MailAddress
	MinMailLife      = time.Minute
	MinMailQuota     = 1 << 20               // bytes
	MaxMailQuota     = 1 << 50               // bytes
	MinMailKeep      = time.Hour             // less would be mail that nobody has read
	MaxMailKeep      = 3650 * 24 * time.Hour // ten years

	maxAliasBytes = 64 // of a local part (RFC 5321 §4.5.3.1.1)
)

// SendTo is to whom a VM may send mail outside of its host; one of a later Lodge is nobody.
type SendTo string

// To whom a VM may send.
const (
	SendToKnown  SendTo = ""       // people who may use it or open its pages, and who wrote to it
	SendToAnyone SendTo = "anyone" // the setting of an owner of the host
	SendToNobody SendTo = "nobody" // not on its host either, but to itself
)

// ParseSendTo reads the word that people use.
func ParseSendTo(text string) (SendTo, error) {
	switch to := SendTo(text); to {
	case "known":
		return SendToKnown, nil
	case SendToAnyone, SendToNobody:
		return to, nil
	}
	return "", Invalid("mail cannot be sent to %.100q", text).WithHint("Choose known, anyone or nobody.")
}

// String returns the word that people use.
func (to SendTo) String() string {
	if to == SendToKnown {
		return "known"
	}
	return string(to)
}

// MailSettings are what was set of a VM's mail. The zero value receives all mail from anyone. Values are
// copies; the lists are never changed in place.
type MailSettings struct {
	Off            bool          `json:"off,omitempty"`             // no mail is received
	QuotaBytes     int64         `json:"quota_bytes,omitempty"`     // of the mailbox on the host; 0: only the host's own limits
	Keep           time.Duration `json:"keep,omitempty"`            // mail is removed after it; 0: never
	Wake           bool          `json:"wake,omitempty"`            // a new message starts the stopped VM
	Route          string        `json:"route,omitempty"`           // into the VM, as ParseMailRoute reads it; empty: MailRouteAuto
	RefuseRejected bool          `json:"refuse_rejected,omitempty"` // refuse what the DMARC policy of its From rejects (RFC 7489 §6.3)
	SendTo         SendTo        `json:"send_to,omitempty"`         // to whom it may send mail
	AllowFrom      []string      `json:"allow_from,omitempty"`      // senders, each an address or an @domain, in lower case and A-labels; empty: anyone
	Aliases        []string      `json:"aliases,omitempty"`         // "sales": anything@sales.<domain>; "sales@": sales@<domain>. See CheckAlias
	Addresses      []MailAddress `json:"addresses,omitempty"`

	Passwords []MailPassword `json:"passwords,omitempty"` // by which IMAP opens the mail from outside; at most MaxMailPasswords
}

// MailAddress is a local part of a VM that only some may write to, for a time. It goes before AllowFrom.
type MailAddress struct {
	Local   string    `json:"local"` // see NewMailLocal
	From    []string  `json:"from"`  // as AllowFrom; never empty
	Label   string    `json:"label,omitempty"`
	Expires time.Time `json:"expires"`
}

// mailLocalPrefix begins the local part of each MailAddress, and 26 characters of base 32 follow.
const mailLocalPrefix = "only-"

// NewMailLocal makes the local part of a MailAddress: 130 random bits.
func NewMailLocal() string { return mailLocalPrefix + strings.ToLower(rand.Text()) }

// isMailLocal reports whether a local part could be one of NewMailLocal. Whether it exists does not matter:
// one that was removed never becomes one of the addresses that anyone may write to.
func isMailLocal(local string) bool {
	text, ok := strings.CutPrefix(local, mailLocalPrefix)
	return ok && len(text) == 26 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// Accepts decides on mail for a local part of the VM. From is the envelope's sender, in lower case and
// A-labels; it is empty for the null sender, which no list allows. An envelope proves nothing: whoever
// has an allowed address can put it there.
func (s MailSettings) Accepts(local, from string, now time.Time) bool {
	if s.Off {
		return false
	}
	local = PlainLocal(local)
	if isMailLocal(local) {
		i := slices.IndexFunc(s.Addresses, func(a MailAddress) bool { return a.Local == local })
		return i >= 0 && now.Before(s.Addresses[i].Expires) && allows(s.Addresses[i].From, from)
	}
	return len(s.AllowFrom) == 0 || allows(s.AllowFrom, from)
}

func allows(list []string, from string) bool {
	at := strings.LastIndexByte(from, '@')
	return at > 0 && (slices.Contains(list, from) || slices.Contains(list, from[at:]))
}

// PlainLocal returns a local part in lower case, without a "+" and what follows it (RFC 5233).
func PlainLocal(local string) string {
	plain, _, _ := strings.Cut(local, "+")
	return strings.ToLower(plain)
}

// reservedLocals at the domain are the operator's: RFC 2142 names some, and to others authorities send what
// proves a domain (CA/Browser Forum, Baseline Requirements §3.2.2.4.4).
const reservedLocals = " abuse admin administrator hostmaster lodge mailer-daemon noc postmaster root security ssl-admin webmaster "

// CheckAlias checks that a VM can have a mail alias (else KindInvalid): a name as VMs have, or a local part
// with an "@" behind it, of 1 to 64 of a–z, 0–9 and single ".", "_" or "-" between those.
func CheckAlias(alias string) error {
	local, isLocal := strings.CutSuffix(alias, "@")
	if !isLocal {
		return CheckName(alias)
	}
	if strings.Contains(reservedLocals, " "+local+" ") {
		return Invalid("the address %.100s is reserved for the host's operator", alias).WithHint("Its mail is shown by lodge mail postmaster.")
	}
	if !isPlainLocal(local) || isMailLocal(local) {
		return Invalid("not a local part for an alias: %.100q", local).
			WithHint("Use 1 to %d lower-case letters and digits, with single dots, dashes or underscores between them, such as \"sales@\".", maxAliasBytes)
	}
	return nil
}

// isPlainLocal reports whether s is letters and digits, with single dots, dashes and underscores between them.
func isPlainLocal(s string) bool {
	between := false
	for _, c := range []byte(s) {
		isMark := strings.IndexByte("._-", c) >= 0
		if isMark && !between || !isMark && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
		between = !isMark
	}
	return between && len(s) <= maxAliasBytes
}

// ByAlias returns the VM that has a mail alias: a name, or a local part with an "@" behind it.
func (d *Directory) ByAlias(alias string) (VM, bool) {
	m, ok := d.now.Load().byAlias[alias]
	return m, ok
}

// checkAliases checks the aliases of m, and that none is another VM's or any VM's name. A VM that is being
// removed has none.
func (d *Directory) checkAliases(m VM) error {
	if m.Desired == Removed {
		return nil
	}
	if len(m.Mail.Aliases) > MaxMailAliases {
		return Errorf(KindConflict, "%s has %d mail aliases; the limit is %d", m.Name, len(m.Mail.Aliases), MaxMailAliases).
			WithHint("Remove one: lodge mail set %s --remove-alias NAME", m.Name)
	}
	for _, alias := range m.Mail.Aliases {
		if err := CheckAlias(alias); err != nil {
			return err
		}
		if holder, ok := d.ByAlias(alias); ok && holder.ID != m.ID {
			return errAliasTaken(alias, holder)
		}
		if holder, ok := d.ByName(alias); ok || alias == m.Name {
			if !ok {
				holder = m
			}
			return Errorf(KindTaken, "there is a VM named %q already", holder.Name).WithHint("Choose another alias.")
		}
	}
	return nil
}

func errAliasTaken(alias string, holder VM) error {
	return Errorf(KindTaken, "%q is a mail alias of the VM %q already", alias, holder.Name).
		WithHint("Choose another name, or remove the alias: lodge mail set %s --remove-alias %s", holder.Name, alias)
}
