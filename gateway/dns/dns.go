// Package dns answers guests' questions at 169.254.169.254, port 53 (RFC 1035).
//
// Names in Lodge's own zones (VMs below the domain, and lodge.internal) lead to the gateway itself,
// or do not exist. All other questions are forwarded to the resolvers of the host. A query comes in
// on its VM's tap. The number of queries forwarded at once is limited, per VM and in all.
//
// It never forwards a question about a name in its own zones, never answers outside a tap, and
// never caches: the host's resolvers do.
package dns

import (
	"context"
	"log/slog"
	"strings"
	"time"

	wire "github.com/miekg/dns"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// Limits.
const (
	maxPerVM      = 64               // forwarded questions of one VM under way
	maxForward    = 1024             // of all VMs
	maxConns      = 32               // connections of one VM; each can hold a message of 64 KiB
	maxAllConns   = 512              // of all VMs
	maxReadErrors = 100              // in a row, after which a socket is given up
	maxUDP        = 1232             // bytes of an answer over UDP (DNS flag day 2020); without EDNS it is wire.MinMsgSize
	idleTCP       = 10 * time.Second // between two questions on a connection (RFC 7766 §6.2.3)
	ttl           = 30               // seconds, of records in the own zones
)

// Config is what a Server needs. Every field is required.
type Config struct {
	Directory  *gateway.Directory
	Domain     string // below which VMs have their names
	ResolvConf string // the host's list of resolvers, resolv.conf(5); read again when it changes
	Logger     *slog.Logger
}

// Server answers questions.
type Server struct {
	Config
	zones    []string // its own
	upstream *upstream
	queries  *limit.Limit[gateway.ID] // forwarded ones
	conns    *limit.Limit[gateway.ID] // over TCP
}

// New returns a Server.
func New(config Config) *Server {
	return &Server{
		Config:   config,
		zones:    []string{wire.Fqdn(strings.ToLower(config.Domain)), wire.Fqdn(gateway.InternalDomain), reverseName},
		upstream: newUpstream(config.ResolvConf, config.Logger),
		queries:  limit.New[gateway.ID](maxPerVM, maxForward),
		conns:    limit.New[gateway.ID](maxConns, maxAllConns),
	}
}

// answer returns the reply to a query; nil for a packet that gets none.
func (s *Server) answer(ctx context.Context, vm gateway.Identity, network string, query *wire.Msg) *wire.Msg {
	if query.Response || !vm.Known() {
		return nil // an answer to an answer could start a loop
	}
	reply := new(wire.Msg).SetReply(query)
	reply.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(maxUDP, opt.Do())
	}
	if reply.Rcode = refusal(query); reply.Rcode == wire.RcodeSuccess {
		if zone, own := s.zoneOf(query.Question[0].Name); own {
			s.own(reply, zone)
		} else {
			s.forward(ctx, vm, network, query, reply)
		}
	}
	reply.Truncate(room(network, query))
	return reply
}

// room is the largest size of an answer in bytes.
func room(network string, query *wire.Msg) int {
	if network == "tcp" {
		return wire.MaxMsgSize
	}
	if opt := query.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), wire.MinMsgSize), maxUDP)
	}
	return wire.MinMsgSize
}

// refusal is the response code of a query that is not looked up; else 0.
func refusal(query *wire.Msg) int {
	if query.Opcode != wire.OpcodeQuery {
		return wire.RcodeNotImplemented
	}
	if len(query.Question) != 1 {
		return wire.RcodeFormatError
	}
	if opt := query.IsEdns0(); opt != nil && opt.Version() != 0 {
		return wire.RcodeBadVers
	}
	q := query.Question[0]
	switch q.Qtype {
	case wire.TypeANY, wire.TypeAXFR, wire.TypeIXFR, wire.TypeMAILA, wire.TypeMAILB:
		return wire.RcodeRefused // large answers to small questions (RFC 8482), and transfers of zones
	}
	if q.Qclass != wire.ClassINET {
		return wire.RcodeRefused
	}
	return wire.RcodeSuccess
}
