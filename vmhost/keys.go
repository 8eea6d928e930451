package vmhost

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// newKey makes an ed25519 key pair: the private half as OpenSSH writes it, the public half as an authorized_keys line
// without its line end.
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

// loginKey reads the host's own login key from file, or makes it, and returns its public half.
func loginKey(file string) (public string, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		private, public, err := newKey("lodge host")
		if err != nil {
			return "", err
		}
		return public, writeSynced(file, private)
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

// writeSynced writes a file of mode 0600 that is whole or absent, whatever happens meanwhile, and on disk when it returns.
func writeSynced(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = bytes.NewReader(data).WriteTo(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return syncPath(filepath.Dir(file))
}

// syncPath brings a file, or the entries of a directory, to disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
