package smtpd

import (
	"context"
	"crypto/tls"
	"time"
)

// handshakeLimit is for a whole handshake, which may wait for a certificate to be ordered.
const handshakeLimit = 45 * time.Second

// startTLS runs STARTTLS (RFC 3207). All state from before is void, and what the client, or
// somebody between, has sent behind the command is never read as if it had come encrypted.
func (s *session) startTLS(ctx context.Context, args string) Reply {
	switch {
	case s.server.config.TLS == nil:
		return Reply{502, "5.5.1", "Command not implemented"}
	case s.client.TLS:
		return replyOrder("TLS is active already")
	case args != "":
		return replySyntax("STARTTLS")
	case s.in.buffered() > 0:
		s.ended = true
		return Reply{554, "5.5.0", "Nothing may follow STARTTLS before the handshake"}
	}
	s.reset(errReset)
	s.client.Helo, s.client.ESMTP = "", false
	s.reply(Reply{220, "2.0.0", "Ready to start TLS"})
	if err := s.out.Flush(); err != nil {
		s.ended = true
		return Reply{}
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	secure := tls.Server(s.conn, s.server.config.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		s.server.config.Logger.Debug("smtp handshake failed", "remote", s.client.Remote, "err", err)
		s.ended = true
		return Reply{}
	}
	s.use(secure)
	s.client.TLS = true
	return Reply{}
}
