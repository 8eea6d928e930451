package mail

import (
	"fmt"
	"net/netip"

	"lodge/gateway"
	"lodge/mail/journal"
	"lodge/mail/mailbox"
	"lodge/mail/relay"
	"lodge/mail/submit"
)

// Out is what sending mail needs. Dir and Resolver must be set.
type Out struct {
	Dir       string // of the queue and the keys; created if missing
	Resolver  relay.Resolver
	Smarthost *relay.Smarthost // nil: mail goes to the servers of its recipients' domains
	Refuse    []netip.Prefix   // no mail goes there, whatever DNS has: the guests' net
	// ServesKeys: a name server of this host has the keys, if _domainkey.<domain> is delegated to it.
	ServesKeys bool
}

// newQueue opens the queue; nil if nothing is sent.
func newQueue(config Config, mailboxes *mailbox.Store, log *journal.Journal) (*relay.Queue, error) {
	if config.Out == nil {
		return nil, nil
	}
	known := func(id gateway.ID) bool {
		m, ok := config.Directory.ByID(id)
		return id == gateway.Postmaster().ID || ok && m.Desired != gateway.Removed
	}
	queue, err := relay.New(relay.Config{
		Dir: config.Out.Dir, Domain: config.Domain, Mailboxes: mailboxes, Resolver: config.Out.Resolver, Smarthost: config.Out.Smarthost,
		Refuse: config.Out.Refuse, ServesKeys: config.Out.ServesKeys, Known: known, Arrived: config.Arrived, Journal: log,
		Limits: relay.DefaultLimits(), Times: relay.DefaultTimes(), Logger: config.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("outgoing mail: %w", err)
	}
	return queue, nil
}

// wayOut is where VMs' mail to others goes; nil if none is sent.
func wayOut(config Config, queue *relay.Queue) submit.Relay {
	switch {
	case config.relay != nil:
		return config.relay
	case queue != nil:
		return queue
	default:
		return nil
	}
}

// Queue is where mail that leaves the host is handed over; nil if none is sent.
func (s *Server) Queue() *relay.Queue { return s.queue }

// DNSRecords are those that the mail of a VM's own domain needs; for "", that of this host. On a host that sends no mail
// an own domain needs that alone by which mail comes here, and for the host it fails with KindConflict.
func (s *Server) DNSRecords(own string) ([]gateway.DNSRecord, error) {
	switch {
	case own != "" && s.queue == nil:
		return []gateway.DNSRecord{relay.MX(own, s.config.Domain)}, nil
	case own != "":
		return s.queue.DomainRecords(own), nil
	case s.queue == nil:
		return nil, gateway.Errorf(gateway.KindConflict, "this host sends no mail").WithHint("Remove mail_out = false from lodge.toml, then restart lodged.")
	}
	return s.queue.Records(), nil
}
