// Package screen has what an operator may set up against unwanted mail of strangers: blocklists in
// DNS (DNSBLs, RFC 5782), greylisting (RFC 6647) and rspamd. All of it is off by default.
//
// A Screen answers three questions, at RCPT and at the end of a message: is the client on a list,
// is it too early for this sender, and what does rspamd advise. Package inbound makes replies of
// the answers, and asks nothing about mail of this host, of its VMs and for its operator.
//
// A service that is slow, broken or hostile never refuses mail. What such services and strangers
// can make large, and what it gets:
//
//   - DNS that does not answer within 3 s, or fails: not on the list, for a minute;
//   - a list that has 127.0.0.1, which RFC 5782 §5 forbids: it has everybody, so it lists nobody, and
//     neither does one that gives no clear answer about 127.0.0.1;
//   - results about clients above 4,096: all are dropped, and looked up again;
//   - a text of a list or of rspamd: the first 200 printable characters;
//   - rspamd that does not answer within 10 s, or with more than 1 MiB: no advice; 16 messages at
//     once;
//   - first attempts within a day above 256 of one net, 1,024 of the net around it (/48, IPv4: /16), or
//     65,536 of all: mail is not delayed;
//   - pairs that are known, above 100,000: the tenth that wrote the longest ago is removed.
package screen

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Config has what is on. The zero Config is all off.
type Config struct {
	Blocklists []string // zones of DNSBLs
	Resolver   Resolver // must be set with Blocklists
	Greylist   bool
	// Rspamd is the URL of a worker of rspamd, without a path: http://127.0.0.1:11333. Empty: off.
	Rspamd string
	// Reject makes Advice.Reject possible: otherwise what rspamd rejects is Spam.
	Reject bool
}

// Resolver returns the records of a kind at a name. An error is a *net.DNSError with IsNotFound if
// there are none, any other if that is not known.
type Resolver interface {
	Ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error)
}

// Screen is safe for concurrent use; make it with New.
type Screen struct {
	config Config
	logger *slog.Logger
	client *http.Client
	broken atomic.Bool // rspamd's last answer was none

	results results // of blocklists

	mu   sync.Mutex
	grey *greylist // nil: off
}

// New returns a Screen. The pairs that greylisting knows are in dir, which it creates if missing.
func New(config Config, dir string, logger *slog.Logger) (*Screen, error) {
	s := &Screen{config: config, logger: logger, client: newClient()}
	if !config.Greylist {
		return s, nil
	}
	var err error
	s.grey, err = openGreylist(dir)
	return s, err
}

const maxText = 200

// printable makes a text of somebody else fit for a reply.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text[:min(len(text), maxText)])
	return strings.TrimSpace(text)
}
