package verdict

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// Limits on what signatures cost. Those of the header bound what the library does in quadratic time: it
// appends each line to its field, and goes through all fields for each name that a signature has.
const (
	maxSignatures  = 5
	maxKeyBytes    = 2 << 10   // of a key record
	maxBlankBytes  = 64 << 10  // of white space in a row: the library holds what may be the end of a body
	maxHeaderBytes = 128 << 10 // of a header
	maxFolded      = 128 << 20 // see Header
	maxSigned      = 4 << 20   // product of the signatures' bytes and the fields
)

func (h Header) tooLarge() bool {
	return h.bytes > maxHeaderBytes || h.folded > maxFolded || h.signed*h.fields > maxSigned
}

var (
	errUnread = errors.New("the message was not read in time")
	errBlank  = errors.New("too much white space in the body")
)

// dkim checks the first signatures of a message.
func (r *lookup) dkim(ctx context.Context, m Message) []Signature {
	if m.Header.tooLarge() {
		return []Signature{{Result: PermError, Reason: "header too large"}}
	}
	content := &patient{Reader: m.Content, done: ctx.Done()}
	checked, err := dkim.VerifyWithOptions(content, &dkim.VerifyOptions{LookupTXT: r.key, MaxVerifications: maxSignatures})
	switch {
	case errors.Is(content.fault, errBlank):
		return []Signature{{Result: PermError, Reason: errBlank.Error()}}
	case content.fault != nil:
		return []Signature{{Result: TempError, Reason: content.fault.Error()}}
	case len(checked) == 0:
		return []Signature{{Result: PermError, Reason: cmp.Or(reason(err), "no signature can be read")}}
	}
	all := make([]Signature, 0, len(checked))
	for _, v := range checked {
		s := Signature{Result: resultOf(v.Err), Domain: hostName(v.Domain), Reason: reason(v.Err)}
		if s.Domain == "" && v.Err == nil {
			s.Result, s.Reason = PermError, "the domain is no host name"
		}
		all = append(all, s)
	}
	return all
}

func resultOf(err error) Result {
	switch {
	case err == nil:
		return Pass
	case dkim.IsPermFail(err):
		return PermError
	case dkim.IsTempFail(err):
		return TempError
	default:
		return Fail
	}
}

// reason makes an error fit for a header: a few plain words.
func reason(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(" .,:-_/", c) {
			return c
		}
		return -1
	}, strings.TrimPrefix(err.Error(), "dkim: "))
	return strings.TrimSpace(text[:min(len(text), 100)])
}

// key returns the texts of a key record, for the library.
func (r *lookup) key(name string) ([]string, error) {
	texts, err := r.LookupTXT(r.ctx, name)
	for _, text := range texts {
		if len(text) > maxKeyBytes {
			return nil, &net.DNSError{Err: "key record too large", Name: name}
		}
	}
	return texts, err
}

// patient reads a message until something is wrong with it. It ends then and does not fail, since the
// library leaves goroutines behind that wait for the rest.
type patient struct {
	io.Reader
	done  <-chan struct{}
	blank int
	fault error
}

func (r *patient) Read(p []byte) (int, error) {
	select {
	case <-r.done:
		r.fault = errUnread
	default:
	}
	if r.fault != nil {
		return 0, io.EOF
	}
	n, err := r.Reader.Read(p)
	for _, c := range p[:n] {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			r.blank = 0
		} else if r.blank++; r.blank > maxBlankBytes {
			r.fault = errBlank
			return 0, io.EOF
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.fault, err = errUnread, io.EOF
	}
	return n, err //nolint:wrapcheck // an io.Reader's
}
