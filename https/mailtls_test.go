package https_test

import (
	"crypto/tls"
	"net"
	"testing"
)

// A server that sends mail gets the certificate of the VM it asks for, and the domain's for any other
// name: its handshake never fails for the name's sake.
func TestMailTLS(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	for asked, want := range map[string]string{
		"blog.lodge.localhost": "blog.lodge.localhost", "BLOG.lodge.localhost": "blog.lodge.localhost", "8080-blog.lodge.localhost": "8080-blog.lodge.localhost",
		"": "lodge.localhost", "lodge.localhost": "lodge.localhost", "mx.example.org": "lodge.localhost", "blog.lodge.internal": "lodge.localhost",
	} {
		near, far := net.Pipe()
		go func() { _ = tls.Server(far, s.server.MailTLS()).HandshakeContext(t.Context()) }()                              // the client has the error
		client := tls.Client(near, &tls.Config{ServerName: asked, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) //nolint:gosec // verified below
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Errorf("%q: %v", asked, err)
			continue
		}
		certificate := client.ConnectionState().PeerCertificates[0]
		if err := certificate.VerifyHostname(want); err != nil {
			t.Errorf("%q: %v", asked, err)
		}
		_, _ = near.Close(), far.Close()
	}
}
