package imapd

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-sasl"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/mail/guard"
)

const (
	handshakeLimit = 45 * time.Second // may wait for a certificate to be ordered
	loginLimit     = time.Minute      // from the handshake to a login
	perVM          = 60               // sessions of one VM from outside
)

// OutsideLimits suit people: mail programs have some five connections, and networks have many people.
func OutsideLimits() guard.Limits {
	l := DefaultLimits()
	l.PerPeer, l.PerNet = 60, 120
	return l
}

// outside is what a server has that people log in to.
type outside struct {
	server   *Server
	sessions *limit.Limit[gateway.ID]

	// Wrong passwords. There is no limit per VM over all addresses, by which a stranger could lock its people
	// out: 130 random bits are not guessed.
	pairs *limit.Rates[pair]
	peers *limit.Rates[gateway.Peer]
	nets  *limit.Rates[gateway.Peer]

	mu   sync.Mutex
	open map[gateway.ID]map[*session]struct{}
}

// pair is an address, and the VM that it tries.
type pair struct {
	peer gateway.Peer
	vm   string
}

func newOutside(s *Server) *outside {
	o := &outside{
		server: s, sessions: limit.New[gateway.ID](perVM, 0), open: map[gateway.ID]map[*session]struct{}{},
		pairs: limit.NewRates[pair](1./12, 5), peers: limit.NewRates[gateway.Peer](1./3, 20), nets: limit.NewRates[gateway.Peer](1, 60),
	}
	s.config.Directory.Watch(o.changed)
	if s.config.Makers != nil {
		s.config.Makers.Watch(o.peopleChanged)
	}
	return o
}

// greet begins a session, by the handshake.
func (o *outside) greet(c net.Conn) (*session, error) {
	s := &session{server: o.server, conn: c, cut: c.Close}
	if beneath, ok := c.(interface{ NetConn() net.Conn }); ok {
		if secure, ok := beneath.NetConn().(*tls.Conn); ok {
			ctx, cancel := context.WithTimeout(context.Background(), handshakeLimit)
			defer cancel()
			if err := secure.HandshakeContext(ctx); err != nil {
				o.server.config.Logger.Debug("imap handshake failed", "remote", c.RemoteAddr().String(), "err", err)
				return nil, bye("No handshake")
			}
			s.cut = secure.NetConn().Close // Close of TLS may wait for the client, to send a goodbye
		}
	}
	s.late = time.AfterFunc(loginLimit, func() { _ = s.cut() }) // go-imap then closes the rest
	return s, nil
}

// errLogin is of a wrong password, and of a VM that does not exist: a stranger learns of neither.
func errLogin() error {
	return no(imap.ResponseCodeAuthenticationFailed, "Wrong user or password")
}

// login opens the mail of the VM that a user names, if the password is one of it.
func (o *outside) login(s *session, user, password string) error {
	name := vmName(user, o.server.config.Domain)
	remote := s.conn.RemoteAddr().String()
	undo, ok := o.mayTry(pair{gateway.PeerOf(s.conn), name})
	if !ok {
		return no(imap.ResponseCodeLimit, "Too many wrong passwords: wait a minute")
	}
	m, _ := o.server.config.Directory.ByName(name)
	p, ok := m.MailPassword(password)
	if !ok || !o.mayStill(p.By, m) {
		o.server.config.Logger.Info("imap login refused", "remote", remote)
		return errLogin()
	}
	undo()
	leave, ok := o.sessions.Enter(m.ID)
	if !ok {
		return no(imap.ResponseCodeLimit, "Too many sessions of this mailbox")
	}
	folders, err := o.server.config.Store.Folders(m.ID)
	if err == nil && !s.late.Stop() {
		err = net.ErrClosed
	}
	if err != nil {
		leave()
		return s.answer(err)
	}
	s.vm, s.folders, s.password, s.leave = m.Identity, folders, p.Hash, leave
	if !o.add(s) {
		return errLogin()
	}
	o.server.config.Logger.Info("imap session opened", gateway.LogVM(m.Identity), "remote", remote)
	return nil
}

// mayTry takes what a wrong password costs; undo gives it back after a right one.
func (o *outside) mayTry(p pair) (undo func(), ok bool) {
	now := time.Now()
	var undos []func()
	undo = func() {
		for _, f := range undos {
			f()
		}
	}
	for _, take := range []func() (time.Duration, func(), bool){
		func() (time.Duration, func(), bool) { return o.pairs.Reserve(p, now, 0) },
		func() (time.Duration, func(), bool) { return o.peers.Reserve(p.peer, now, 0) },
		func() (time.Duration, func(), bool) { return o.nets.Reserve(p.peer.Around(), now, 0) },
	} {
		_, back, ok := take()
		if !ok {
			undo()
			return nil, false
		}
		undos = append(undos, back)
	}
	return undo, true
}

// vmName returns the VM of a user: its name, its host name, or an address there.
func vmName(user, domain string) string {
	name := strings.ToLower(user)
	name = name[strings.LastIndexByte(name, '@')+1:]
	name = strings.TrimSuffix(name, "."+domain)
	return name[:min(len(name), 64)] // no VM has a longer one
}

// add lists a session, unless its password was revoked since it was compared.
func (o *outside) add(s *session) bool {
	o.mu.Lock()
	if o.open[s.vm.ID] == nil {
		o.open[s.vm.ID] = map[*session]struct{}{}
	}
	o.open[s.vm.ID][s] = struct{}{}
	o.mu.Unlock()
	m, ok := o.server.config.Directory.ByID(s.vm.ID)
	if !ok || !o.opens(m, s) {
		o.remove(s)
		return false
	}
	return true
}

func (o *outside) remove(s *session) {
	s.leave()
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open[s.vm.ID], s)
	if len(o.open[s.vm.ID]) == 0 {
		delete(o.open, s.vm.ID)
	}
}

// opens reports whether the VM still has the password of a session, and who made it its rights.
func (o *outside) opens(m gateway.VM, s *session) bool {
	return m.Desired != gateway.Removed && slices.ContainsFunc(m.Mail.Passwords, func(p gateway.MailPassword) bool {
		return bytes.Equal(p.Hash, s.password) && o.mayStill(p.By, m)
	})
}

// mayStill reports whether the one who made a password may manage the VM now.
func (o *outside) mayStill(who gateway.Principal, m gateway.VM) bool {
	makers := o.server.config.Makers
	return makers == nil || makers.Level(who, m).Covers(gateway.Manage)
}

// peopleChanged ends the sessions of passwords whose makers have lost their rights.
func (o *outside) peopleChanged() {
	o.mu.Lock()
	var ids []gateway.ID
	for id := range o.open {
		ids = append(ids, id)
	}
	o.mu.Unlock()
	for _, id := range ids {
		m, _ := o.server.config.Directory.ByID(id)
		o.changed(gateway.VM{Identity: gateway.Identity{ID: id}}, m)
	}
}

// changed ends the sessions whose password, or VM, is gone.
func (o *outside) changed(old, m gateway.VM) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.open[old.ID] {
		if !o.opens(m, s) {
			_ = s.cut() // go-imap then closes the rest
		}
	}
}

// AuthenticateMechanisms implements imapserver.SessionSASL.
func (s *session) AuthenticateMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Authenticate implements imapserver.SessionSASL.
func (s *session) Authenticate(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(identity, user, password string) error {
			if identity != "" && identity != user {
				return errLogin()
			}
			return s.Login(user, password)
		}), nil
	case sasl.Login:
		return &loginMechanism{login: s.Login}, nil
	default:
		return nil, no("", "Choose PLAIN or LOGIN")
	}
}

// loginMechanism is the server of AUTH=LOGIN (draft-murchison-sasl-login), which go-sasl has for clients alone.
type loginMechanism struct {
	login   func(user, password string) error
	user    string
	hasUser bool
}

// Next implements sasl.Server.
func (l *loginMechanism) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !l.hasUser:
		return []byte("Username:"), false, nil
	case !l.hasUser:
		l.user, l.hasUser = string(response), true
		return []byte("Password:"), false, nil
	default:
		return nil, true, l.login(l.user, string(response))
	}
}
