// Package imapd serves the mailboxes of VMs: IMAP4rev1 (RFC 3501) by go-imap, inside the VM without a
// password, and from outside to people who have one.
//
// Inside, the connection carries the VM (gateway.IdentityOf): the greeting is PREAUTH. A connection
// without a VM is answered with BYE. Outside, TLS comes first, and a login with the VM's name and one of
// its passwords (gateway.MailPassword), within a minute. A password that is revoked ends its sessions.
//
// INBOX has the mail of the VM. Beside it there are Sent, Drafts, Trash, Archive
// and Junk, and what folders clients make. What they append, copy or move is synced to disk before OK.
//
// The view of a session is a list of UIDs; message sequence numbers are positions in it, and Poll
// and Idle update it. Bodies are read from disk as they are sent; package mime finds their parts, in
// bounds, for few messages at a time, and SEARCH decodes them in pieces. A message that was expunged
// meanwhile is left out of a response, and so is one that cannot be read, which also makes the
// command fail. This package never changes a message.
package imapd

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/guard"
	"lodge/mail/mailbox"
)

// Config is what a Server needs. All fields must be set, but for Take, and TLS and Domain of a server for VMs.
type Config struct {
	Directory *gateway.Directory
	Store     *mailbox.Store
	Limits    guard.Limits
	Logger    *slog.Logger
	TLS       *tls.Config // of a server for people outside; nil: it is one for VMs
	Makers    Makers      // of passwords; nil: no rights are asked for
	Domain    string      // VMs are at <vm>.<Domain>, for logins

	MaxMessageBytes int64                     // of a message that is appended
	Take            Take                      // nil: clients may add any number of bytes
	Subject         func(first []byte) string // of a message that begins so, for lists
}

// Take takes bytes that a client adds from what the VM can get now, or is false. undo gives them back.
type Take func(vm gateway.ID, bytes int64) (undo func(), ok bool)

// Makers has the rights of those who made passwords; people.Book is one.
type Makers interface {
	Level(who gateway.Principal, vm gateway.VM) gateway.Level
	// Watch calls f after each change of people.
	Watch(f func())
}

// DefaultLimits suit VMs; RFC 9051 §5.4 requires at least 30 minutes before an autologout.
func DefaultLimits() guard.Limits {
	return guard.Limits{
		Conns: 2000, PerPeer: 40, PerNet: 40, Idle: 35 * time.Minute, Crowded: 35 * time.Minute, Session: 30 * 24 * time.Hour, Writes: 1 << 40,
	}
}

// maxParsing is how many messages are parsed in memory at once, over all sessions.
const maxParsing = 2

// Server is an IMAP server. Make it with New.
type Server struct {
	config  Config
	guard   *guard.Server
	parsing chan struct{} // holds one for each message that is being parsed
	outside *outside      // nil: it is one for VMs

	watchers watchers
}

// New returns a server that does not listen yet.
func New(config Config) *Server {
	s := &Server{config: config, parsing: make(chan struct{}, maxParsing), watchers: watchers{n: map[*mailbox.Box]int{}}}
	engine := imapserver.New(&imapserver.Options{
		NewSession: s.newSession,
		// LITERAL+ is left out: go-imap takes the bytes of a literal that it refuses and that did not wait for its reply, such
		// as a message above APPENDLIMIT, for commands.
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}, imap.CapESearch: {}, imap.CapNamespace: {}, imap.CapStatusSize: {},
			imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapMove: {}, imap.CapChildren: {}, imap.CapSpecialUse: {},
		},
		Logger:       errorLog{config.Logger},
		InsecureAuth: config.TLS != nil, // go-imap does not see that the guard is on top of TLS
	})
	s.guard = &guard.Server{
		Name: "imap", Protocol: engine, Limits: config.Limits,
		Replies: guard.Replies{Busy: "* BYE Too many connections", HTTP: "* BYE This is IMAP, not HTTP"},
	}
	if config.TLS != nil {
		s.outside = newOutside(s)
		s.guard.Replies.Busy = "" // it would need a handshake
	}
	return s
}

// Serve serves l until Shutdown, and returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if s.config.TLS != nil {
		l = tls.NewListener(l, s.config.TLS)
	}
	return s.guard.Serve(l)
}

// Shutdown stops listening and ends the sessions. When ctx ends it cuts what is left, and returns
// the context's error.
func (s *Server) Shutdown(ctx context.Context) error { return s.guard.Shutdown(ctx) }

func (s *Server) newSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	if s.outside != nil {
		session, err := s.outside.greet(c.NetConn())
		if err != nil {
			return nil, nil, err
		}
		return session, nil, nil
	}
	vm := gateway.IdentityOf(c.NetConn())
	m, ok := s.config.Directory.ByID(vm.ID)
	if !vm.Known() || !ok || m.Desired == gateway.Removed {
		return nil, nil, bye("This mailbox opens only inside its VM")
	}
	folders, err := s.config.Store.Folders(vm.ID)
	if err != nil {
		s.config.Logger.Error("mailbox not opened", gateway.LogVM(vm), "err", err)
		return nil, nil, bye("The mailbox cannot be opened, see lodged's log")
	}
	return &session{server: s, vm: vm, folders: folders, conn: c.NetConn()}, &imapserver.GreetingData{PreAuth: true}, nil
}

func bye(text string) error { return &imap.Error{Type: imap.StatusResponseTypeBye, Text: text} }

// errorLog logs go-imap's messages: panics and lost connections.
type errorLog struct{ logger *slog.Logger }

// Printf implements imapserver.Logger.
func (l errorLog) Printf(format string, args ...any) {
	if strings.HasPrefix(format, "panic") { // go-imap recovers it and ends the connection
		l.logger.Error("imap session panicked", "err", fmt.Sprintf(format, args...))
		return
	}
	l.logger.Debug("imap session message", "err", fmt.Sprintf(format, args...))
}
