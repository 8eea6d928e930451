package issuer

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// keysFile has all keys, so that one rename replaces them; its mode is 0600.
const keysFile = "keys.json"

// storedKey is a key in keysFile. Its kid is computed from it.
type storedKey struct {
	PKCS8 []byte    `json:"pkcs8"` // DER, in base64
	Signs time.Time `json:"signs"` // from when on it signs
}

// readKeys reads the keys in dir, oldest first; none without a file. It removes what a crash left of
// an unfinished one.
func readKeys(dir string) ([]key, error) {
	unfinished, err := filepath.Glob(filepath.Join(dir, durable.TempPattern))
	if err != nil {
		return nil, fmt.Errorf("list unfinished files: %w", err)
	}
	for _, file := range unfinished {
		if err := os.Remove(file); err != nil {
			return nil, fmt.Errorf("remove unfinished file: %w", err)
		}
	}
	file := filepath.Join(dir, keysFile)
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	keys, err := parseKeys(content)
	if err != nil {
		return nil, gateway.Errorf(gateway.KindInternal, "the signing keys in %s are damaged", file).Because(err).
			WithHint("Restore the file, or move it away: the first token makes a new key, which relying parties fetch by themselves.")
	}
	return keys, nil
}

// parseKeys reads what formatKeys returned.
func parseKeys(content []byte) ([]key, error) {
	var stored []storedKey
	if err := json.Unmarshal(content, &stored); err != nil {
		return nil, err
	}
	var keys []key
	for _, one := range stored {
		parsed, err := x509.ParsePKCS8PrivateKey(one.PKCS8)
		if err != nil {
			return nil, err
		}
		private, ok := parsed.(*rsa.PrivateKey)
		if !ok || private.Size() != keyBits/8 || one.Signs.IsZero() {
			return nil, errors.New("an entry is not a key for RS256 with a time")
		}
		keys = append(keys, key{private, thumbprint(&private.PublicKey), one.Signs})
	}
	if len(keys) == 0 {
		return nil, errors.New("the file has no key")
	}
	return keys, nil
}

func formatKeys(keys []key) ([]byte, error) {
	var stored []storedKey
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return nil, err
		}
		stored = append(stored, storedKey{der, k.signs.UTC()})
	}
	return json.Marshal(stored)
}

// writeKeys replaces the keys in dir. When it returns nil, they are on disk.
func writeKeys(dir string, keys []key) error {
	content, err := formatKeys(keys)
	if err != nil {
		return fmt.Errorf("format signing keys: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, keysFile), content, 0o600)
}
