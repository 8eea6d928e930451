package verdict

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"lodge/gateway/limit"
)

// Limits on questions.
const (
	maxAtOnce = 32 // different ones about one organisational domain
	maxInAll  = 1024
	maxUDP    = 1232 // no fragments on any path (DNS flag day 2020)
)

// patience is how long a Check takes at most, an answer for it, and one attempt to get that.
type patience struct{ check, answer, attempt time.Duration }

func defaultPatience() patience {
	return patience{5 * time.Second, 4 * time.Second, 1500 * time.Millisecond}
}

// Resolver asks the host's resolvers, the same question once at a time, and keeps their answers. It
// is safe for concurrent use; make it with NewResolver.
type Resolver struct {
	conf     string               // resolv.conf(5)
	given    []string             // host:port; nil: those of conf
	asking   *limit.Limit[string] // organisational domains
	asked    singleflight.Group
	memory   memory
	patience patience

	mu      sync.Mutex
	servers []string // of conf
	read    time.Time
}

// NewResolver returns a Resolver of the servers that a file in the format of resolv.conf(5) has, or of
// those that are named, host:port.
func NewResolver(conf string, servers ...string) *Resolver {
	return &Resolver{
		conf: conf, given: servers, asking: limit.New[string](maxAtOnce, maxInAll), memory: memory{known: map[question]answer{}},
		patience: defaultPatience(),
	}
}

type question struct {
	name string // fully qualified, in lower case
	kind uint16
}

// Ask returns the records of a kind at a name, aliases followed. All errors are *net.DNSError, as the
// libraries want it: not found, or temporary.
func (r *Resolver) Ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	if _, ok := dns.IsDomainName(name); !ok || !printable(name) {
		return nil, notFound(name)
	}
	q := question{dns.CanonicalName(name), kind}
	records, ok := r.memory.get(q)
	if !ok {
		var err error
		if records, err = r.once(ctx, q); err != nil {
			return nil, temporary(name, err.Error())
		}
	}
	if len(records) == 0 {
		return nil, notFound(name)
	}
	return records, nil
}

// once asks a question once for all who want the answer now. A caller that leaves ends it for itself.
func (r *Resolver) once(ctx context.Context, q question) ([]dns.RR, error) {
	answers := r.asked.DoChan(fmt.Sprint(q.kind, q.name), func() (records any, err error) {
		defer func() {
			if recover() != nil { // singleflight would end the daemon
				err = errors.New("ask resolver: the library panicked")
			}
		}()
		leave, ok := r.asking.Enter(organisation(strings.TrimSuffix(q.name, ".")))
		if !ok {
			return nil, errors.New("too many questions about the domain under way")
		}
		defer leave()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience.answer)
		defer cancel()
		return r.query(ctx, q)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("ask resolver: %w", ctx.Err())
	case a := <-answers:
		records, _ := a.Val.([]dns.RR) // nil with an error
		return records, a.Err          //nolint:wrapcheck // it is of the function above
	}
}

// query asks one server after the other, twice, until one has an answer: records, or that there are none.
func (r *Resolver) query(ctx context.Context, q question) (records []dns.RR, err error) {
	err = errors.New("the host has no resolvers")
	servers := r.list()
	for _, server := range append(servers[:len(servers):len(servers)], servers...) {
		var reply *dns.Msg
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask resolver: %w", ctx.Err())
		}
		if reply, err = r.exchange(ctx, server, q); err != nil {
			continue
		}
		if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("ask resolver: %s", dns.RcodeToString[reply.Rcode])
			continue
		}
		for _, rr := range reply.Answer {
			if rr.Header().Rrtype == q.kind && rr.Header().Class == dns.ClassINET {
				records = append(records, rr)
			}
		}
		r.memory.put(q, records, reply.Len())
		return records, nil
	}
	return nil, err
}

// exchange asks one server, by TCP if the answer does not fit into a datagram.
func (r *Resolver) exchange(ctx context.Context, server string, q question) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(q.name, q.kind)
	query.SetEdns0(maxUDP, false)
	for _, network := range []string{"udp", "tcp"} {
		client := &dns.Client{Net: network, Timeout: r.patience.attempt, UDPSize: maxUDP}
		reply, _, err := client.ExchangeContext(ctx, query, server)
		if err != nil {
			return nil, fmt.Errorf("ask resolver: %w", err)
		}
		// The library compares IDs; the question has to be the same too (RFC 5452 §4.2).
		if len(reply.Question) != 1 || reply.Question[0].Qtype != q.kind || dns.CanonicalName(reply.Question[0].Name) != q.name {
			return nil, errors.New("ask resolver: it answered another question")
		}
		if !reply.Truncated {
			return reply, nil
		}
	}
	return nil, errors.New("ask resolver: the answer is too large")
}

// list returns the servers. The file is read again after 10 s.
func (r *Resolver) list() []string {
	if r.given != nil {
		return r.given
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.read) < 10*time.Second {
		return r.servers
	}
	config, err := dns.ClientConfigFromFile(r.conf)
	if err != nil {
		return r.servers // the last ones known; without any, all questions fail for now
	}
	r.read, r.servers = time.Now(), nil
	for _, server := range config.Servers {
		r.servers = append(r.servers, net.JoinHostPort(server, config.Port))
	}
	return r.servers
}
