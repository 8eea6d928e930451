// Package mail receives mail for VMs and delivers it to them: anything@<vm>.<domain> goes to the
// VM. It takes in what VMs send, each on its own tap (submit).
//
// SMTP is spoken by smtpd; inbound decides who gets which mail. The mailbox on the host is the record
// (package mailbox): 250 is sent only once a message is synced to disk there. Two ways lead from the
// record into the VM: a copy in the guest's ~/Maildir, or in what else its owner has set (deliver), and
// IMAP, where the tap is the login (imapd). Connections of strangers pass a guard first (guard).
//
// A message is the same everywhere, byte for byte: Return-Path, Delivered-To, Authentication-Results
// (package verdict) and Received on top, then what came over SMTP without forged ones of these, lines
// ending in CRLF. After 250 nothing is bounced: mail for a VM that is off or broken waits, without
// delaying that of others. Mail of VMs to others leaves by a queue (relay); what came from outside never
// leaves the host again. This package never parses mail to decide where it goes.
package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/gateway/people"
	"lodge/mail/contacts"
	"lodge/mail/deliver"
	"lodge/mail/guard"
	"lodge/mail/imapd"
	"lodge/mail/inbound"
	"lodge/mail/journal"
	"lodge/mail/mailbox"
	"lodge/mail/notice"
	"lodge/mail/relay"
	"lodge/mail/screen"
	"lodge/mail/smtpd"
	"lodge/mail/submit"
	"lodge/mail/verdict"
)

// DefaultMaxMessageBytes is 50 MiB.
const DefaultMaxMessageBytes = 50 << 20

// Config is what a Server needs. Dir, Domain, Directory, SSHKeyFile and Logger must be set.
type Config struct {
	Dir             string // created if missing; one process at a time
	Domain          string // VMs get mail at anything@<vm>.<Domain>
	Directory       *gateway.Directory
	SSHKeyFile      string           // the host's private key, for the login user of every guest
	MaxMessageBytes int64            // of the largest message; 0 means DefaultMaxMessageBytes
	TLS             *tls.Config      // for STARTTLS on port 25, and ServeIMAPS; nil: these are not offered
	Verdicts        *verdict.Checker // checks who sent a message; nil: nobody does
	Screen          screen.Config    // what else keeps mail of strangers out; zero: nothing
	Out             *Out             // for sending mail; nil: none is sent
	People          *people.Book     // to whom VMs may write; nil: nobody
	Objects         deliver.Objects  // for the routes into buckets; nil: there are none
	// Dial connects to a port of a guest; nil means over its tap.
	Dial func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error)
	// Arrived is called for each VM that gets a message, after it is synced to disk, and never for mail
	// that waits already. It must return at once; nil: nothing is done.
	Arrived func(gateway.ID)
	Logger  *slog.Logger

	smtpLimits *smtpd.Limits // nil: the defaults; for tests
	sendRates  *submit.Rates // as above
	inBytes    smtpd.Rate    // as above
	relay      submit.Relay  // nil: the queue; for tests
	deliver    deliver.Times // zero: the defaults; for tests
}

// Server is the host's mail service. Make it with New, run ServeSMTP, ServeIMAP and Run
// concurrently, and end them with Shutdown.
type Server struct {
	config     Config
	store      *mailbox.Store
	inbound    *inbound.Policy
	smtp       *smtpd.Server
	contacts   *contacts.Book
	journal    *journal.Journal
	searches   *limit.Limit[gateway.ID]
	requests   *limit.Limit[gateway.ID] // of VMs, over their own mail
	outbound   *submit.Policy
	inside     http.Handler
	submission *smtpd.Server
	imap       *imapd.Server
	people     *imapd.Server // nil without TLS
	replica    *deliver.Replica
	queue      *relay.Queue // nil: no mail leaves the host
	notices    *notice.Sender

	mu   sync.Mutex
	stop context.CancelFunc // ends Run
	run  sync.WaitGroup
	down bool

	calls sync.WaitGroup // requests of VMs
}

func (config *Config) setDefaults() {
	if config.MaxMessageBytes == 0 {
		config.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if config.Dial == nil {
		config.Dial = dialGuest
	}
	if config.smtpLimits == nil {
		limits := smtpd.DefaultLimits()
		config.smtpLimits = &limits
	}
	if config.deliver == (deliver.Times{}) {
		config.deliver = deliver.DefaultTimes()
	}
	if config.sendRates == nil {
		rates := submit.DefaultRates()
		config.sendRates = &rates
	}
}

// bytes is what one VM can get. A bucket that holds less than the largest message would refuse it for ever.
func (config *Config) bytes() smtpd.Rate {
	r := config.inBytes
	if r == (smtpd.Rate{}) {
		r = inbound.DefaultBytes()
	}
	const heads = 1 << 20 // of trace headers and more
	r.Burst = max(r.Burst, int(config.MaxMessageBytes)+heads)
	return r
}

// New opens the store. It serves and delivers nothing yet.
func New(config Config) (*Server, error) {
	config.setDefaults()
	store, err := mailbox.Open(config.Dir, config.Logger)
	if err != nil {
		return nil, err
	}
	store.Obey(func(id gateway.ID) gateway.MailSettings {
		m, _ := config.Directory.ByID(id)
		return m.Mail
	})
	k, err := openKept(config, store)
	if err != nil {
		store.Close()
		return nil, err
	}
	book, log, queue := k.contacts, k.journal, k.queue
	policy := inbound.New(inbound.Config{
		Domain: config.Domain, Directory: config.Directory, Store: store, Verdicts: config.Verdicts, Screen: k.screen, Contacts: book,
		Arrived: config.Arrived, Journal: log, Bytes: config.bytes(), Logger: config.Logger,
	})
	outbound := submit.New(submit.Config{
		Domain: config.Domain, Directory: config.Directory, Inbound: policy, Store: store, Contacts: book, People: config.People,
		Relay: wayOut(config, queue), MaxMessageBytes: config.MaxMessageBytes, Rates: *config.sendRates, Arrived: config.Arrived, Journal: log, Logger: config.Logger,
	})
	s := &Server{
		config: config, store: store, inbound: policy, contacts: book, journal: log, searches: limit.New[gateway.ID](searchesPerVM, maxSearches),
		requests: limit.New[gateway.ID](maxInsidePerVM, maxInside),
		outbound: outbound, queue: queue,
		notices: notice.New(config.Domain, wayOut(config, queue), config.Logger),
		submission: smtpd.New(smtpd.Config{
			Domain: config.Domain, Policy: outbound, MaxMessageBytes: config.MaxMessageBytes,
			Limits: submit.DefaultLimits(), Logger: config.Logger,
		}),
		smtp: smtpd.New(smtpd.Config{
			Domain: config.Domain, Policy: policy, MaxMessageBytes: config.MaxMessageBytes, TLS: config.TLS,
			Limits: *config.smtpLimits, Logger: config.Logger,
		}),
		imap:   imapServer(config, store, policy.Take, imapd.DefaultLimits(), nil),
		people: imapsServer(config, store, policy.Take),
		replica: deliver.New(deliver.Config{
			Domain: config.Domain, Store: store, Directory: config.Directory, KeyFile: config.SSHKeyFile, Dial: config.Dial, Objects: config.Objects,
			Times: config.deliver, Journal: log, Logger: config.Logger,
		}),
	}
	s.inside = s.newInside()
	return s, nil
}

// kept is what is on disk beside the mailboxes.
type kept struct {
	contacts *contacts.Book
	journal  *journal.Journal
	screen   *screen.Screen
	queue    *relay.Queue
}

func openKept(config Config, store *mailbox.Store) (k kept, err error) {
	if k.contacts, err = contacts.Open(filepath.Join(config.Dir, "contacts")); err != nil {
		return k, err
	}
	k.journal = journal.Open(filepath.Join(config.Dir, "journal"), config.Logger)
	if k.screen, err = screen.New(config.Screen, filepath.Join(config.Dir, "greylist"), config.Logger); err != nil {
		return k, err
	}
	k.queue, err = newQueue(config, store, k.journal)
	return k, err
}

func imapServer(config Config, store *mailbox.Store, take imapd.Take, limits guard.Limits, secure *tls.Config) *imapd.Server {
	c := imapd.Config{
		Directory: config.Directory, Store: store, Limits: limits, Logger: config.Logger, TLS: secure, Domain: config.Domain,
		MaxMessageBytes: config.MaxMessageBytes, Subject: inbound.Subject, Take: take,
	}
	if config.People != nil { // nil in an interface would not be nil
		c.Makers = config.People
	}
	return imapd.New(c)
}

func imapsServer(config Config, store *mailbox.Store, take imapd.Take) *imapd.Server {
	if config.TLS == nil {
		return nil
	}
	return imapServer(config, store, take, imapd.OutsideLimits(), config.TLS)
}

// ServeSMTP receives mail from anyone on l until Shutdown.
func (s *Server) ServeSMTP(l net.Listener) error { return s.smtp.Serve(l) }

// ServeSubmission takes in mail of VMs on l until Shutdown. The connections must carry an Identity.
func (s *Server) ServeSubmission(l net.Listener) error { return s.submission.Serve(l) }

// Inside answers VMs below /lodge/v1/mail. The context of a request has its VM (gateway.WithVM); whoever calls
// this has checked that no web page has made the request.
func (s *Server) Inside() http.Handler { return s.inside }

// ServeIMAP serves VMs on l until Shutdown. The connections must carry an Identity
// (gateway.TapListeners).
func (s *Server) ServeIMAP(l net.Listener) error { return s.imap.Serve(l) }

// ServeIMAPS serves people outside on l until Shutdown, by TLS and with passwords of the VMs. Config.TLS must
// be set.
func (s *Server) ServeIMAPS(l net.Listener) error { return s.people.Serve(l) }

// Run delivers mail into the guests and to other hosts, and removes what is kept no longer, until ctx ends
// or Shutdown. Call it once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return nil
	}
	s.stop = cancel
	s.run.Add(1)
	s.mu.Unlock()
	defer s.run.Done()
	var others sync.WaitGroup
	others.Go(func() { s.store.Run(ctx) })
	if s.queue != nil {
		others.Go(func() { _ = s.queue.Run(ctx) }) // it ends with ctx
	}
	err := s.replica.Run(ctx)
	cancel()
	others.Wait()
	return err
}

// Shutdown lets messages that are coming in finish, ends everything else, and closes the store.
// When ctx ends it closes the connections that are still open.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.down = true
	if s.stop != nil {
		s.stop()
	}
	s.mu.Unlock()
	var in, out error
	var all sync.WaitGroup
	all.Go(func() { in = s.smtp.Shutdown(ctx) })
	all.Go(func() { out = s.submission.Shutdown(ctx) })
	all.Go(func() { _ = s.imap.Shutdown(ctx) }) // a cut IMAP session loses nothing
	if s.people != nil {
		all.Go(func() { _ = s.people.Shutdown(ctx) })
	}
	all.Go(func() { s.awaitCalls(ctx) })
	all.Wait()
	s.run.Wait()
	if s.queue != nil {
		s.queue.Close()
	}
	s.store.Close()
	s.journal.Close()
	return errors.Join(in, out)
}

// Notify sends mail of the host itself; see notice.Sender.
func (s *Server) Notify(ctx context.Context, n gateway.Notice) error { return s.notices.Send(ctx, n) }

// List returns the VM's mail, the newest first, at most limit messages (all when 0).
func (s *Server) List(_ context.Context, id gateway.ID, limit int) ([]gateway.Message, error) {
	box, err := s.box(id)
	if err != nil {
		return nil, err
	}
	list, err := box.List(limit)
	s.replica.Explain(id, list)
	return list, err
}

// Open reads one message: trace headers, then what came over SMTP. It fails with KindNotFound when
// there is none.
func (s *Server) Open(_ context.Context, id gateway.ID, queueID string) (io.ReadCloser, error) {
	box, err := s.box(id)
	if err != nil {
		return nil, err
	}
	e, err := box.Find(queueID)
	if err != nil {
		return nil, err
	}
	content, err := box.Open(e.UID)
	if err != nil {
		return nil, err
	}
	return content, nil
}

// RemoveMessages implements api.Mailbox. The operator's mail goes nowhere else, so none of it waits.
func (s *Server) RemoveMessages(ctx context.Context, id gateway.ID, r gateway.MailRemoval) (gateway.MailRemoved, error) {
	box, err := s.box(id)
	if err != nil {
		return gateway.MailRemoved{}, err
	}
	operator := id == gateway.Postmaster().ID
	r.Waiting = r.Waiting || operator
	removed, err := box.Remove(ctx, r)
	if operator {
		removed.Waiting = 0
	}
	return removed, err
}

// Remove deletes the VM's mailbox, and what it has in the queue. The VM must be Removed in the Directory
// already.
func (s *Server) Remove(_ context.Context, id gateway.ID) error {
	if m, ok := s.config.Directory.ByID(id); ok && m.Desired != gateway.Removed {
		return errors.New("remove mailbox: the VM is not being removed")
	}
	s.inbound.Remove(id)
	s.outbound.Remove(id)
	if s.queue != nil {
		if err := s.queue.Remove(id); err != nil {
			return err
		}
	}
	return errors.Join(s.store.Remove(id), s.contacts.Remove(id), s.journal.Remove(id))
}

// box opens the mailbox of a VM that exists, or of the operator.
func (s *Server) box(id gateway.ID) (*mailbox.Box, error) {
	if id == gateway.Postmaster().ID {
		return s.store.Box(id)
	}
	if m, ok := s.config.Directory.ByID(id); !ok || m.Desired == gateway.Removed {
		return nil, gateway.Errorf(gateway.KindNotFound, "the VM does not exist").WithHint("lodge ls shows the VMs there are.")
	}
	return s.store.Box(id)
}
