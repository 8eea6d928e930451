package vmhost

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"lodge/gateway/durable"
)

// newKey makes an ed25519 key pair: the private key in OpenSSH's format, the public key as an
// authorized_keys line without its line end.
func newKey(comment string) (private []byte, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("make ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return nil, "", fmt.Errorf("write ssh key: %w", err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, "", fmt.Errorf("write ssh key: %w", err)
	}
	return pem.EncodeToMemory(block), line(sshPub), nil
}

// loginKey reads the host's own login key from file, or makes it, and returns the public key.
func loginKey(file string) (public string, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		private, public, err := newKey("lodge host")
		if err != nil {
			return "", err
		}
		return public, durable.WriteFile(file, private, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("read login key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return "", fmt.Errorf("read login key %s: %w", file, err)
	}
	return line(key.PublicKey()), nil
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }
