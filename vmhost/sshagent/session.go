package sshagent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// The message numbers of draft-ietf-sshm-ssh-agent §6.1 that the agent distinguishes.
const (
	failure           = 5
	requestIdentities = 11
	signRequest       = 13
	extension         = 27
)

// maxRequestBytes is OpenSSH's own limit on a message.
const maxRequestBytes = 256 << 10

var (
	errSize      = errors.New("request is empty or too large")
	errForwarded = errors.New("connection is forwarded to another host")
)

// session answers the requests of c until one ends it.
func (s *Server) session(c net.Conn) {
	defer s.end(c)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("ssh agent session panicked", "err", p, "stack", string(debug.Stack()))
		}
	}()
	for s.await(c) {
		if err := s.exchange(c); err != nil {
			s.log.Debug("ssh agent connection ended", "err", err)
			return
		}
	}
}

// exchange reads a request and writes its reply.
func (s *Server) exchange(c io.ReadWriter) error {
	request, err := readRequest(c)
	if err != nil {
		return err
	}
	reply, err := s.reply(request)
	if err != nil {
		return err
	}
	if _, err := c.Write(reply); err != nil {
		return fmt.Errorf("write reply: %w", err)
	}
	return nil
}

// readRequest reads a message with its length.
func readRequest(r io.Reader) ([]byte, error) {
	request := make([]byte, 4)
	if _, err := io.ReadFull(r, request); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	length := binary.BigEndian.Uint32(request)
	if length == 0 || length > maxRequestBytes {
		return nil, errSize
	}
	request = append(request, make([]byte, length)...)
	if _, err := io.ReadFull(r, request[4:]); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return request, nil
}

// reply answers a message with its length by one with its length. The package agent sees valid
// requests for the key alone: it would write what is wrong with others to the standard logger.
func (s *Server) reply(request []byte) ([]byte, error) {
	message := request[4:]
	if isForwarding(message) {
		return nil, errForwarded
	}
	if !s.permits(message) {
		return []byte{0, 0, 0, 1, failure}, nil
	}
	var reply bytes.Buffer
	err := agent.ServeAgent(s.keys, struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(request), &reply})
	if !errors.Is(err, io.EOF) { // at the end of the request
		return nil, err
	}
	return reply.Bytes(), nil
}

// permits reports whether a message lists the keys, or has the key sign.
func (s *Server) permits(message []byte) bool {
	if message[0] == requestIdentities {
		return true
	}
	var sign struct {
		Blob  []byte `sshtype:"13"` // signRequest
		Data  []byte
		Flags uint32
	}
	return message[0] == signRequest && ssh.Unmarshal(message, &sign) == nil && bytes.Equal(sign.Blob, s.blob)
}

// isForwarding reports whether a message announces that ssh forwards the connection, as OpenSSH
// does since version 8.9 (session-bind@openssh.com, PROTOCOL.agent §1).
func isForwarding(message []byte) bool {
	var bind struct {
		Type                          string `sshtype:"27"` // extension
		HostKey, SessionID, Signature []byte
		Forwarding                    bool
	}
	return message[0] == extension && ssh.Unmarshal(message, &bind) == nil &&
		bind.Type == "session-bind@openssh.com" && bind.Forwarding
}
