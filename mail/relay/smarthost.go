package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/emersion/go-sasl"
)

// Smarthost is a server that takes all mail of this host and sends it on.
type Smarthost struct {
	Addr     string         // host:port; STARTTLS is required there, and its certificate is verified
	User     string         // "": no login
	Password string         // for AUTH PLAIN
	Roots    *x509.CertPool // nil: those of the system
}

// openSmarthost connects, in TLS, and logs in. What fails is the operator's to repair, so no mail fails
// for it.
func (q *Queue) openSmarthost(ctx context.Context) (*session, *failure) {
	h := q.config.Smarthost
	s, err := q.dialSmarthost(ctx, h)
	if err != nil {
		f, _ := failureOf(h.Addr, err)
		f.permanent, f.status = false, "4.3.0"
		return nil, f
	}
	return s, nil
}

func (q *Queue) dialSmarthost(ctx context.Context, h *Smarthost) (*session, error) {
	name, _, err := net.SplitHostPort(h.Addr)
	if err != nil {
		return nil, fmt.Errorf("smarthost: %w", err)
	}
	s, err := q.dial(ctx, name, h.Addr, &tls.Config{ServerName: name, RootCAs: h.Roots, MinVersion: tls.VersionTLS12}, true)
	if err != nil {
		return nil, err
	}
	if h.User == "" {
		return s, nil
	}
	if !s.client.SupportsAuth(sasl.Plain) {
		err = errors.New("the server does not offer AUTH PLAIN")
	} else {
		err = s.client.Auth(sasl.NewPlainClient("", h.User, h.Password))
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("log in: %w", err)
	}
	return s, nil
}
