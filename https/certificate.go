package https

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"

	"lodge/gateway"
	"lodge/https/acme"
	"lodge/https/names"
)

// hstsValue makes browsers use https for half a year (RFC 6797). It is sent for names with a public
// certificate alone: with the own authority's, whoever lacks its root could open the page no more.
const hstsValue = "max-age=15768000"

// newACME returns the source of public certificates; nil without a configuration for one.
func (s *Server) newACME() (*acme.Source, error) {
	if s.ACME == nil {
		return nil, nil //nolint:nilnil // the own authority is enough
	}
	config := *s.ACME
	config.Domain, config.Owner, config.Logger = s.Domain, s.certificateOwner, s.Logger
	return acme.New(context.Background(), config)
}

// RunACME obtains and renews public certificates until ctx ends.
func (s *Server) RunACME(ctx context.Context) error {
	if s.acme == nil {
		<-ctx.Done()
		return nil
	}
	return s.acme.Run(ctx)
}

// ACMESource is where public certificates come from; nil without a configuration.
func (s *Server) ACMESource() *acme.Source { return s.acme }

// DomainURL returns the address of a custom domain, and whether it can have a certificate.
func (s *Server) DomainURL(domain string) (url string, certified bool) {
	return names.Origin(domain, s.Port), s.certifiesCustom()
}

// certifiesCustom reports whether there are certificates for custom domains. The own authority's
// root excludes them.
func (s *Server) certifiesCustom() bool { return s.CustomCertificate != nil || s.acme != nil }

// certificateOwner is the Owner of acme.Config: the VM of the name. Where there is a wildcard, a
// deeper name has its certificate for as long as the VM's page is public: for a private VM it would
// show strangers that the VM exists. A custom domain is in the DNS anyway.
func (s *Server) certificateOwner(host string) (string, bool) {
	rt, ok := s.zone.Route(host, gateway.Identity{}, s.Directory)
	switch {
	case !ok || rt.Host != host:
		return "", false
	case rt.Custom: // what an owner has chosen is not counted with what strangers ask for
		_, d, _ := s.Directory.ByDomain(host)
		return d.Name, true
	case rt.Service != "":
		return s.serviceOwner(rt)
	case s.ACME.Records != nil && (!s.beyondWildcard(rt.Name) || rt.VM.Visibility(gateway.DefaultPort) != gateway.Public):
		return "", false
	}
	if host == s.Domain || host == rt.Plain {
		return host, host == s.Domain || rt.IsVM()
	}
	return rt.VMName, rt.IsVM()
}

// serviceOwner is certificateOwner for a service's name. Names below <vm>.<service> are counted
// with the VM, and have certificates as names below the VM's own; that of a bucket that is shared
// with everyone has one, too.
func (s *Server) serviceOwner(rt names.Route) (string, bool) {
	below, ok := strings.CutSuffix(rt.Host, "."+rt.Service)
	if !ok {
		return rt.Host, s.ACME.Records == nil
	}
	vm, ok := s.Directory.ByName(below[strings.LastIndexByte(below, '.')+1:])
	return vm.Name, ok && (s.ACME.Records == nil || vm.Visibility(gateway.DefaultPort) == gateway.Public || rt.Share().Visibility == gateway.Public)
}

// beyondWildcard reports whether a name is below the domain, but not directly.
func (s *Server) beyondWildcard(name names.Name) bool {
	labels, below := strings.CutSuffix(name.Host, "."+s.Domain)
	return below && strings.Contains(labels, ".")
}

// certificate returns the certificate for a handshake that GetConfigForClient has accepted. Below
// the domain it is the wildcard, or a name's own one, or that of the own authority, in this order.
// nil makes crypto/tls send the alert unrecognized_name.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	rt, ok := s.zone.Route(hello.ServerName, gateway.IdentityOf(hello.Conn), s.Directory)
	switch {
	case !ok: // it was removed meanwhile
		return nil, gateway.Errorf(gateway.KindNotFound, "no name %q on this host", hello.ServerName)
	case rt.Custom && s.CustomCertificate != nil:
		return s.CustomCertificate(hello.Context(), rt.Host)
	case s.acme == nil || rt.Guests:
		return s.authority.Certificate(rt.Subject)
	}
	if c, ok := s.publicCertificate(rt); ok {
		return c, nil
	}
	if _, ok := s.certificateOwner(rt.Host); ok {
		c, err := s.acme.Order(hello, rt.Host)
		if err == nil {
			return c, nil
		}
		s.Logger.Debug("certificate not ordered", "host", rt.Host, "err", err)
	}
	if rt.Custom {
		return nil, nil //nolint:nilnil // the own authority's root excludes it
	}
	if c, ok := s.acme.Cached("*." + s.Domain); ok {
		return c, nil
	}
	return s.authority.Certificate(rt.Subject)
}

// MailTLS is the configuration for STARTTLS of mail: the client gets the certificate of the VM whose name
// it asks for, and else the domain's. Servers that send mail often name none, or one of an MX record;
// they would send in clear text if the handshake failed, or not at all. Old cipher suites are better
// than none for the same reason.
func (s *Server) MailTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.mailCertificate}
}

func (s *Server) mailCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	rt, ok := s.zone.Route(hello.ServerName, gateway.Identity{}, s.Directory)
	if !ok || !rt.IsVM() || rt.Custom && !s.certifiesCustom() {
		return s.domainCertificate(hello)
	}
	c, err := s.certificate(hello)
	if err != nil || c == nil { // it is ordered, or could not be
		return s.domainCertificate(hello)
	}
	return c, nil
}

// domainCertificate is the certificate for a client that has asked for the domain, or for another name.
func (s *Server) domainCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	domain := *hello
	domain.ServerName = s.Domain
	return s.certificate(&domain)
}

// publicCertificate returns the public certificate that a name is served with, if there is one in
// memory. With a wildcard, no name directly below the domain has one of its own.
func (s *Server) publicCertificate(rt names.Route) (*tls.Certificate, bool) {
	if s.acme == nil || rt.Host == "" || rt.Guests {
		return nil, false
	}
	host := rt.Host
	if _, ok := s.certificateOwner(host); !ok {
		if s.beyondWildcard(rt.Name) || s.ACME.Records == nil {
			return nil, false
		}
		if host != s.Domain {
			host = "*." + s.Domain
		}
	}
	return s.acme.Cached(host)
}

// setHSTS sets Strict-Transport-Security for a name with a public certificate.
func (s *Server) setHSTS(h http.Header, rt names.Route) {
	if _, ok := s.publicCertificate(rt); ok {
		h.Set("Strict-Transport-Security", hstsValue)
	}
}
