// Package relay sends mail from this host to other mail servers.
package relay

import (
	"io"

	"lodge/gateway"
)

// Message is one that leaves the host.
type Message struct {
	VM   gateway.Identity // who sends it; gateway.Postmaster() for the host itself
	From string           // of the envelope, without <>; empty for a report (RFC 5321 §4.5.5)
	To   []string         // of the envelope, each without <>; all are on other hosts
	UTF8 bool             // it needs SMTPUTF8 (RFC 6531)
	Body io.Reader        // headers included, with CRLF line ends

	// Signer is the domain of the DKIM signatures (d=): a domain of the VM's own, or empty for the host's.
	Signer string

	// Ready is called once the message is checked, signed and has room, before it is recorded. If it fails,
	// nothing is sent. nil: nothing is done.
	Ready func() error
}
