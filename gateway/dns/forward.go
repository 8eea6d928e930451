package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"

	"lodge/gateway"
)

// Time limits of one resolver, and of all of them together.
const (
	patience      = 2 * time.Second
	totalPatience = 5 * time.Second
)

// forward queries the host's resolvers and fills in reply: SERVFAIL when none answers, or the VM
// has too many queries at once.
func (s *Server) forward(ctx context.Context, vm gateway.Identity, network string, query, reply *wire.Msg) {
	reply.Rcode = wire.RcodeServerFailure
	leave, ok := s.queries.Enter(vm.ID)
	if !ok {
		s.Logger.DebugContext(ctx, "dns query refused", "vm", vm.Name, "err", "too many under way")
		return
	}
	defer leave()
	got, err := s.upstream.ask(ctx, network, query)
	if err != nil {
		s.Logger.DebugContext(ctx, "dns query failed", "vm", vm.Name, "err", err)
		return
	}
	if got.Rcode > 0xf && reply.IsEdns0() == nil {
		return // without EDNS there is no room for such a code
	}
	reply.Rcode, reply.Truncated, reply.AuthenticatedData = got.Rcode, got.Truncated, got.AuthenticatedData
	reply.Answer, reply.Ns = got.Answer, got.Ns
	isOPT := func(rr wire.RR) bool { return rr.Header().Rrtype == wire.TypeOPT } // of one hop only (RFC 6891 §6.1.1)
	reply.Extra = append(slices.DeleteFunc(got.Extra, isOPT), reply.Extra...)
}

// upstream is the list of the host's resolvers.
type upstream struct {
	path   string // resolv.conf(5)
	port   string
	logger *slog.Logger

	mu      sync.Mutex
	read    os.FileInfo // the file as it was when servers was read from it
	servers []string
}

func newUpstream(path string, logger *slog.Logger) *upstream {
	return &upstream{path: path, port: "53", logger: logger}
}

// list returns the resolvers, from the file if that has changed.
func (u *upstream) list(ctx context.Context) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	info, err := os.Stat(u.path)
	if err == nil && u.read != nil && os.SameFile(info, u.read) && info.ModTime().Equal(u.read.ModTime()) && info.Size() == u.read.Size() {
		return u.servers
	}
	var config *wire.ClientConfig
	if err == nil {
		config, err = wire.ClientConfigFromFile(u.path)
	}
	if err != nil {
		u.logger.WarnContext(ctx, "resolvers not read", "err", err)
		return u.servers // the last ones known
	}
	// The gateway's own address in that list would be a loop.
	servers := slices.DeleteFunc(config.Servers, func(s string) bool { return s == gateway.LinkLocal.String() })
	if !slices.Equal(servers, u.servers) {
		u.logger.InfoContext(ctx, "resolvers read", "host", strings.Join(servers, " "))
	}
	u.read, u.servers = info, servers
	return servers
}

// ask queries one resolver after the other until one has an answer.
func (u *upstream) ask(ctx context.Context, network string, query *wire.Msg) (*wire.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, totalPatience)
	defer cancel()
	var refused *wire.Msg
	err := errors.New("the host has no resolvers")
	for _, server := range u.list(ctx) {
		var got *wire.Msg
		if got, err = u.askOne(ctx, network, server, query); err != nil {
			continue
		}
		switch got.Rcode {
		case wire.RcodeServerFailure, wire.RcodeRefused, wire.RcodeNotImplemented:
			refused = got // another may have an answer
		default:
			return got, nil
		}
	}
	if refused != nil {
		return refused, nil
	}
	return nil, err
}

// askOne sends a new message, so that neither the options nor the ID of the guest's query are
// forwarded.
func (u *upstream) askOne(ctx context.Context, network, server string, query *wire.Msg) (*wire.Msg, error) {
	q := query.Question[0]
	ask := new(wire.Msg).SetQuestion(q.Name, q.Qtype)
	ask.RecursionDesired, ask.CheckingDisabled, ask.AuthenticatedData = query.RecursionDesired, query.CheckingDisabled, query.AuthenticatedData
	opt := query.IsEdns0()
	ask.SetEdns0(maxUDP, opt != nil && opt.Do())
	client := &wire.Client{Net: network, Timeout: patience, UDPSize: maxUDP}
	got, _, err := client.ExchangeContext(ctx, ask, net.JoinHostPort(server, u.port))
	if err != nil {
		return nil, fmt.Errorf("ask resolver %s: %w", server, err)
	}
	// The library compares IDs; the question has to be the same too (RFC 5452 §4.2).
	if len(got.Question) != 1 || got.Question[0].Qtype != q.Qtype || got.Question[0].Qclass != q.Qclass ||
		wire.CanonicalName(got.Question[0].Name) != wire.CanonicalName(q.Name) {
		return nil, fmt.Errorf("ask resolver %s: it answered another question", server)
	}
	return got, nil
}
