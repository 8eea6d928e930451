package sshagent

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"golang.org/x/crypto/ssh"
)

// stream is a connection with everything that a client sends, and what it is sent.
type stream struct {
	io.Reader
	bytes.Buffer
}

func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...) //nolint:gosec // a test's own
}

// signing is a request for a signature.
func signing(blob, data []byte, flags uint32) []byte {
	return ssh.Marshal(struct {
		Blob  []byte `sshtype:"13"`
		Data  []byte
		Flags uint32
	}{blob, data, flags})
}

// Whatever clients send, each request has one reply: a failure, the key, or the key's signature of
// the request's data. The key stays, and stays the only one.
func FuzzRequests(f *testing.F) {
	s, public := newServer(f)
	blob := public.Marshal()
	list := framed([]byte{requestIdentities})
	f.Add(list)
	f.Add(append(list, framed(signing(blob, []byte("data"), 2))...))
	f.Add(framed(signing(blob[:20], []byte("data"), 0)))
	f.Add(append(framed([]byte{19}), list...)) // remove all
	f.Add(framed(append([]byte{17}, ssh.Marshal(struct{ Type string }{"ssh-rsa"})...)))
	f.Add(framed(ssh.Marshal(struct {
		Type string `sshtype:"27"`
	}{"session-bind@openssh.com"})))
	f.Add([]byte{0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := &stream{Reader: bytes.NewReader(sent)}
		requests := bytes.NewReader(sent)
		for s.exchange(c) == nil {
			request, err := readRequest(requests)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := readRequest(&c.Buffer)
			if err != nil || c.Len() > 0 {
				t.Fatalf("request %x: %v, and %d bytes follow the reply", request, err, c.Len())
			}
			check(t, public, request[4:], reply[4:])
		}
		if c.Len() > 0 {
			t.Errorf("%d bytes and no reply", c.Len())
		}
		if keys, err := s.keys.List(); err != nil || len(keys) != 1 || !bytes.Equal(keys[0].Blob, blob) {
			t.Errorf("afterwards there are %v, %v", keys, err)
		}
	})
}

func check(t *testing.T, public ssh.PublicKey, request, reply []byte) {
	t.Helper()
	switch reply[0] {
	case failure:
		if len(reply) != 1 || request[0] == requestIdentities {
			t.Errorf("%x failed with %x", request, reply)
		}
	case 12: // identities
		if !bytes.HasSuffix(reply, []byte("the host")) || request[0] != requestIdentities {
			t.Errorf("%x: %x", request, reply)
		}
	case 14: // a signature
		var asked struct {
			Blob  []byte `sshtype:"13"`
			Data  []byte
			Flags uint32
		}
		var answer struct {
			Blob []byte `sshtype:"14"`
		}
		var signature ssh.Signature
		for _, err := range []error{
			ssh.Unmarshal(request, &asked), ssh.Unmarshal(reply, &answer), ssh.Unmarshal(answer.Blob, &signature),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := public.Verify(asked.Data, &signature); err != nil {
			t.Error(err)
		}
	default:
		t.Errorf("%x: %x", request, reply)
	}
}
