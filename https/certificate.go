package https

import (
	"crypto/tls"

	"lodge/gateway"
	"lodge/https/names"
)

// DomainURL returns the address of a custom domain, and whether it can have a certificate.
func (s *Server) DomainURL(domain string) (url string, certified bool) {
	return names.Origin(domain, s.Port), s.certifiesCustom()
}

// certifiesCustom reports whether there are certificates for custom domains. The own authority's
// root excludes them.
func (s *Server) certifiesCustom() bool { return s.CustomCertificate != nil }

// certificate returns the certificate for a handshake that GetConfigForClient has accepted.
// nil makes crypto/tls send the alert unrecognized_name.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	rt, ok := s.zone.Route(hello.ServerName, gateway.IdentityOf(hello.Conn), s.Directory)
	switch {
	case !ok: // it was removed meanwhile
		return nil, gateway.Errorf(gateway.KindNotFound, "no name %q on this host", hello.ServerName)
	case rt.Custom && s.CustomCertificate != nil:
		return s.CustomCertificate(hello.Context(), rt.Host)
	}
	return s.authority.Certificate(rt.Subject)
}
