package vmhost

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"lodge/gateway/durable"
	"lodge/vmhost/sshagent"
)

// loginComment is the comment of the host's login key.
const loginComment = "lodge host"

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

// loginAgent returns an agent with the host's own login key, which it reads from file, or makes, and
// the public key.
func loginAgent(file string, log *slog.Logger) (server *sshagent.Server, public string, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if text, _, err = newKey(loginComment); err == nil {
			err = durable.WriteFile(file, text, 0o600)
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("read login key: %w", err)
	}
	private, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return nil, "", fmt.Errorf("read login key %s: %w", file, err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, "", fmt.Errorf("read login key %s: %w", file, err)
	}
	if server, err = sshagent.New(private, loginComment, log); err != nil {
		return nil, "", err
	}
	return server, line(signer.PublicKey()), nil
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }
