package storage

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"lodge/gateway/durable"
	"lodge/storage/s3"
	"lodge/storage/store"
)

// sealKey reads the host's key for sealed objects (SSE-S3): 32 bytes. It makes one if the file is missing
// and nothing was ever sealed. If something was, a missing or another key is an error: those objects cannot
// be read without it, and with a new one there would be objects of two.
func sealKey(file string, objects *store.Store) (key [32]byte, err error) {
	id, err := objects.SealID()
	if err != nil {
		return key, err
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && id == nil {
		_, _ = rand.Read(key[:]) // it never fails
		return key, durable.WriteFile(file, key[:], 0o600)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return key, fmt.Errorf("%s is missing, and objects are encrypted with it: restore it from a backup", file)
	}
	if err != nil {
		return key, err
	}
	if len(text) != len(key) {
		return key, fmt.Errorf("%s has %d bytes instead of %d: restore it from a backup", file, len(text), len(key))
	}
	copy(key[:], text)
	if id != nil && !bytes.Equal(id, s3.SealID(key)) {
		return key, fmt.Errorf("%s is not the key that objects are encrypted with: restore that from a backup", file)
	}
	return key, nil
}
