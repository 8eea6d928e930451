package relay

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/emersion/go-msgauth/dkim"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// rsaBits is what RFC 8301 §3.2 asks signers for; longer ones do not fit into one string of DNS at many
// providers.
const rsaBits = 2048

// Limits on a message, because of what the library holds in memory or does in quadratic time.
const (
	maxHeaderBytes = 64 << 10
	maxBlankBytes  = 64 << 10 // of white space in a row
)

// key is a key of the host, which signs the mail of all VMs. d= is the host's domain: the VMs' names are
// below it, so that DMARC's relaxed alignment holds for From at a VM's name (RFC 7489 §3.1.1), and no VM
// needs records of its own. Mail from a VM's own domain is signed for that one: d= is signed too, so that a
// signature for one domain is none for another, whatever key they share.
type key struct {
	selector string
	signer   crypto.Signer
}

type keys []key

// loadKeys reads the keys in a directory, and makes those that are missing. Not every verifier supports
// Ed25519 (RFC 8463), so there is one of RSA too.
func loadKeys(dir string) (keys, error) {
	rsaKey, err := loadKey(filepath.Join(dir, "dkim-rsa.pem"), func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) })
	if err != nil {
		return nil, err
	}
	edKey, err := loadKey(filepath.Join(dir, "dkim-ed25519.pem"), func() (crypto.Signer, error) {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	})
	if err != nil {
		return nil, err
	}
	return keys{{"lodge-rsa", rsaKey}, {"lodge-ed25519", edKey}}, nil
}

func loadKey(path string, generate func() (crypto.Signer, error)) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, generate)
	}
	if err != nil {
		return nil, fmt.Errorf("read DKIM key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read DKIM key: %s is no PEM file", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read DKIM key: %s: %w", path, err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read DKIM key: %s has a %T", path, parsed)
	}
	return signer, nil
}

func makeKey(path string, generate func() (crypto.Signer, error)) (crypto.Signer, error) {
	signer, err := generate()
	if err != nil {
		return nil, fmt.Errorf("make DKIM key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("make DKIM key: %w", err)
	}
	return signer, durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// public returns the tags k and p of the key's record (RFC 6376 §3.6.1, RFC 8463 §4).
func (k key) public() (kind, data string) {
	switch public := k.signer.Public().(type) {
	case ed25519.PublicKey:
		return "ed25519", base64.StdEncoding.EncodeToString(public)
	default:
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			panic(err) // it is of loadKeys
		}
		return "rsa", base64.StdEncoding.EncodeToString(der)
	}
}

// signedFields are those that readers see (RFC 6376 §5.4.1). The ones named twice cannot be added later.
func signedFields() []string {
	return []string{
		"From", "From", "To", "To", "Cc", "Subject", "Subject", "Date", "Date", "Reply-To", "Message-ID", "In-Reply-To", "References",
		"MIME-Version", "Content-Type", "Content-Type", "Content-Transfer-Encoding", "List-Unsubscribe", "List-Unsubscribe-Post",
	}
}

// signing makes all signatures of one message at once.
type signing struct {
	signers []*dkim.Signer
	header  int    // bytes of the header so far
	last    []byte // two bytes of it
	inBody  bool
	blank   int // white space at the end of what was written
}

func (k keys) sign(domain string) (*signing, error) {
	s := &signing{}
	for _, key := range k {
		signer, err := dkim.NewSigner(&dkim.SignOptions{
			Domain: domain, Selector: key.selector, Signer: key.signer, HeaderKeys: signedFields(),
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		})
		if err != nil {
			s.abort()
			return nil, fmt.Errorf("sign message: %w", err)
		}
		s.signers = append(s.signers, signer)
	}
	return s, nil
}

// write signs the next bytes. Its errors are KindInvalid.
func (s *signing) write(p []byte) error {
	if !s.inBody {
		s.count(p)
		if s.header > maxHeaderBytes {
			return gateway.Invalid("the header of the message is larger than %d KiB", maxHeaderBytes>>10)
		}
	}
	for _, c := range p {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			s.blank = 0
		} else if s.blank++; s.blank > maxBlankBytes {
			return gateway.Invalid("the message has more than %d KiB of white space in a row", maxBlankBytes>>10)
		}
	}
	for _, signer := range s.signers {
		if _, err := signer.Write(p); err != nil {
			return gateway.Invalid("the header of the message cannot be read").Because(err)
		}
	}
	return nil
}

// count counts the header, which an empty line ends.
func (s *signing) count(p []byte) {
	begin := append(s.last, p...)
	end := bytes.Index(begin, []byte("\n\r\n"))
	if s.inBody = end >= 0; s.inBody {
		s.header += end
		return
	}
	s.header += len(p)
	s.last = bytes.Clone(begin[max(0, len(begin)-2):])
}

// finish returns the signatures as header fields.
func (s *signing) finish() (fields string, err error) {
	for _, signer := range s.signers {
		if err := signer.Close(); err != nil {
			return "", gateway.Invalid("the header of the message cannot be read").Because(err)
		}
		fields += signer.Signature()
	}
	s.signers = nil
	return fields, nil
}

// abort ends what finish has not. It may be called twice.
func (s *signing) abort() {
	for _, signer := range s.signers {
		_ = signer.Close() // the message is refused
	}
	s.signers = nil
}
