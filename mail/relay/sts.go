package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Limits on MTA-STS policies (RFC 8461 §3.2 and §3.3).
const (
	maxPolicyBytes = 64 << 10
	maxPolicyAge   = 31557600 * time.Second
	maxPolicies    = 4096 // kept
	maxPolicyMX    = 64   // patterns of one
	policyPatience = 15 * time.Second
	policyAgain    = 5 * time.Minute // after a fetch that failed
)

// policy is what a domain has published about its mail servers.
type policy struct {
	id    string   // of its TXT record
	mx    []string // patterns, if enforce
	until time.Time

	// enforce has mail go only to servers that match, in TLS with a certificate for their name. A policy
	// in the modes testing and none changes nothing: no TLSRPT is sent.
	enforce bool
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// policies fetches policies and keeps them until they expire, or this process ends. Without any, nil,
// no domain has one.
type policies struct {
	resolver Resolver
	client   *http.Client
	now      func() time.Time

	mu    sync.Mutex
	known map[string]policy
	tried map[string]time.Time // fetches that failed
}

// newPolicies returns policies that are fetched by connections of dial.
func newPolicies(r Resolver, dial dialer, roots *x509.CertPool) *policies {
	return &policies{
		resolver: r, now: time.Now, known: map[string]policy{}, tried: map[string]time.Time{},
		client: &http.Client{
			Timeout:       policyPatience,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // RFC 8461 §3.3
			Transport: &http.Transport{
				DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
				MaxResponseHeaderBytes: maxPolicyBytes,
			},
		},
	}
}

// of returns the policy of a domain, in A-labels; the zero policy if it has none, or none that can be fetched and an
// earlier one does not hold any more (RFC 8461 §5.1).
func (s *policies) of(ctx context.Context, domain string) policy {
	if s == nil {
		return policy{}
	}
	s.mu.Lock()
	old, tried := s.known[domain], s.tried[domain]
	s.mu.Unlock()
	if s.now().After(old.until) {
		old = policy{}
	}
	id := s.identifier(ctx, domain)
	if id == "" || id == old.id || s.now().Before(tried.Add(policyAgain)) {
		return old
	}
	p, err := s.fetch(ctx, domain)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		bounded(s.tried)
		s.tried[domain] = s.now()
		return old
	}
	p.id = id
	bounded(s.known)
	s.known[domain] = p
	delete(s.tried, domain)
	return p
}

// bounded makes room for one more entry.
func bounded[T any](m map[string]T) {
	if len(m) >= maxPolicies {
		for name := range m { // any
			delete(m, name)
			return
		}
	}
}

// identifier returns the id of the domain's TXT record; empty without exactly one (RFC 8461 §3.1).
func (s *policies) identifier(ctx context.Context, domain string) (id string) {
	records, err := s.resolver.Ask(ctx, "_mta-sts."+domain, dns.TypeTXT)
	if err != nil {
		return ""
	}
	found := 0
	for _, rr := range records {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		fields := strings.Split(strings.Join(txt.Txt, ""), ";")
		if strings.TrimSpace(fields[0]) != "v=STSv1" {
			continue
		}
		found++
		for _, field := range fields[1:] {
			if name, value, _ := strings.Cut(strings.TrimSpace(field), "="); name == "id" {
				id = value
			}
		}
	}
	if found != 1 || len(id) > 32 {
		return ""
	}
	return id
}

func (s *policies) fetch(ctx context.Context, domain string) (policy, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return policy{}, fmt.Errorf("fetch policy: %w", err)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return policy{}, fmt.Errorf("fetch policy: %w", err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if answer.StatusCode != http.StatusOK || kind != "text/plain" {
		return policy{}, fmt.Errorf("fetch policy: status %d, type %q", answer.StatusCode, kind)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxPolicyBytes+1))
	if err != nil {
		return policy{}, fmt.Errorf("fetch policy: %w", err)
	}
	return parsePolicy(string(text), s.now())
}

// parsePolicy reads a policy (RFC 8461 §3.2).
func parsePolicy(text string, now time.Time) (p policy, err error) {
	if len(text) > maxPolicyBytes {
		return policy{}, errors.New("the policy is too large")
	}
	fields := map[string]string{}
	var mx []string
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if _, twice := fields[name]; !twice { // the first one counts
			fields[name] = value
		}
		if name == "mx" {
			mx = append(mx, strings.Clone(strings.ToLower(strings.TrimSuffix(value, ".")))) // not all of text
		}
	}
	age, err := strconv.ParseUint(fields["max_age"], 10, 32)
	if err != nil || fields["version"] != "STSv1" {
		return policy{}, errors.New("the policy cannot be read")
	}
	p.until = now.Add(min(time.Duration(age)*time.Second, maxPolicyAge))
	switch fields["mode"] {
	case "testing", "none":
		return p, nil
	case "enforce":
		if len(mx) == 0 || len(mx) > maxPolicyMX {
			return policy{}, fmt.Errorf("the policy names %d servers", len(mx))
		}
		p.enforce, p.mx = true, mx
		return p, nil
	}
	return policy{}, errors.New("the policy has an unknown mode")
}

// matches reports whether mail may go to a server. *.example.com is one label below (RFC 8461 §4.1).
func (p policy) matches(host string) bool {
	for _, pattern := range p.mx {
		_, parent, _ := strings.Cut(host, ".")
		if below, ok := strings.CutPrefix(pattern, "*."); pattern == host || ok && parent == below {
			return true
		}
	}
	return false
}
