// Package ntp answers guests' time requests at 169.254.169.254, port 123 (RFC 5905, server mode).
//
// A request comes in on its VM's tap as a datagram of 48 bytes or more; the answer is one of 48 bytes, with the host's
// clock in it. Each VM has one goroutine and one socket. Nothing is kept between requests.
//
// It never sets a clock, never asks another server, and never answers with more bytes than it was sent.
package ntp

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"time"

	"lodge/gateway"
)

// Port is that of NTP.
const Port = 123

// The header (RFC 5905 §7.3).
const (
	headerBytes = 48
	modeClient  = 3
	modeServer  = 4
	minVersion  = 1
	maxVersion  = 4

	// stratum is that of a local clock in most servers' defaults: whether and how the host keeps its own time is not known,
	// and a guest with a better source prefers that one.
	stratum = 10
	// precision is log2 of the clock's resolution in seconds: about a microsecond.
	precision = -20
	// rootDispersion is the error assumed of the host's clock, in units of 2^-16 s: 10 ms.
	rootDispersion = 655
)

// referenceID names a local clock, as NTP servers have it for a stratum above 1.
var referenceID = [4]byte{127, 127, 1, 1} //nolint:gochecknoglobals // a constant

// maxReadErrors in a row end a socket.
const maxReadErrors = 100

// Server answers with the host's time.
type Server struct {
	Logger *slog.Logger
	now    func() time.Time
}

// New returns a Server.
func New(logger *slog.Logger) *Server { return &Server{Logger: logger, now: time.Now} }

// ServeUDP answers vm on c, the socket on its tap, until c closes.
func (s *Server) ServeUDP(vm gateway.Identity, c net.PacketConn) {
	buf := make([]byte, 2048) // longer requests have no meaning here
	for failed := 0; failed < maxReadErrors; {
		n, from, err := c.ReadFrom(buf)
		received := s.now()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed++ // an ICMP error for an earlier answer, for example
			continue
		}
		failed = 0
		answer, ok := s.answer(buf[:n], received)
		if !ok {
			continue
		}
		if _, err := c.WriteTo(answer[:], from); err != nil {
			s.Logger.Debug("time not sent", "vm", vm.Name, "err", err) // the guest asks again
		}
	}
}

// answer is the reply to a client's request; false when it is none.
func (s *Server) answer(request []byte, received time.Time) (reply [headerBytes]byte, ok bool) {
	if len(request) < headerBytes {
		return reply, false
	}
	version, mode := request[0]>>3&7, request[0]&7
	if mode != modeClient || version < minVersion || version > maxVersion {
		return reply, false // answers to answers are how loops begin
	}
	reply[0] = version<<3 | modeServer // no leap second is announced
	reply[1] = stratum
	reply[2] = request[2] // poll
	reply[3] = precision & 0xff
	binary.BigEndian.PutUint32(reply[8:], rootDispersion)
	copy(reply[12:], referenceID[:])
	binary.BigEndian.PutUint64(reply[16:], timestamp(received)) // reference: the local clock is read at every request
	copy(reply[24:32], request[40:48])                          // origin: the client's transmit time
	binary.BigEndian.PutUint64(reply[32:], timestamp(received))
	binary.BigEndian.PutUint64(reply[40:], timestamp(s.now()))
	return reply, true
}

// epoch is 1900-01-01 in seconds before 1970-01-01.
const epoch = 2_208_988_800

// timestamp is a time in seconds since 1900, 32 bits of them and 32 of the fraction (RFC 5905 §6). It wraps in 2036, as
// the protocol requires: a client takes the nearest era.
func timestamp(t time.Time) uint64 {
	seconds := uint64(t.Unix() + epoch)            //nolint:gosec // after 1900
	fraction := uint64(t.Nanosecond()) << 32 / 1e9 //nolint:gosec // below 1e9
	return seconds<<32 | fraction
}
