package store

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"lodge/gateway"
)

// checkCommit holds a Commit against the limits of gateway.Shared.
func checkCommit(still []gateway.Cond, do []gateway.Op) error {
	if len(still) > gateway.MaxCommitOps || len(do) > gateway.MaxCommitOps {
		return gateway.Invalid("a commit of %d conditions and %d operations; at most %d each", len(still), len(do), gateway.MaxCommitOps)
	}
	size := 0
	checked, changed := map[string]bool{}, map[string]bool{}
	for _, cond := range still {
		if err := checkKey(cond.Key, checked); err != nil {
			return err
		}
		size += len(cond.Key)
	}
	for _, op := range do {
		if err := checkKey(op.Key, changed); err != nil {
			return err
		}
		size += len(op.Key) + len(op.Value)
	}
	if size > gateway.MaxCommitBytes {
		return gateway.Invalid("a commit of %d bytes; at most %d", size, gateway.MaxCommitBytes)
	}
	return nil
}

// checkKey checks one key, and adds it to those seen before.
func checkKey(key string, seen map[string]bool) error {
	switch {
	case key == "" || len(key) > gateway.MaxKeyBytes:
		return gateway.Invalid("a key of %d bytes; 1 to %d are possible", len(key), gateway.MaxKeyBytes)
	case !utf8.ValidString(key) || strings.Contains(key, "\x00"):
		return gateway.Invalid("the key %q is not UTF-8 without NUL", key)
	case seen[key]:
		return gateway.Invalid("the key %q stands twice in a commit", key)
	}
	seen[key] = true
	return nil
}

// keyRange returns the first possible key with a prefix, and the first one after all those. No key
// has a byte 0xff, for it is UTF-8.
func keyRange(prefix string) (first, end []byte) {
	if prefix == "" {
		return []byte{}, []byte{0xff}
	}
	end = []byte(prefix)
	end[len(end)-1]++
	return []byte(prefix), end
}

// commitAll carries out any number of operations, in as many Commits as they need. Values must be
// small.
func commitAll(ctx context.Context, shared gateway.Shared, do []gateway.Op) error {
	for some := range slices.Chunk(do, gateway.MaxCommitOps) {
		if _, err := shared.Commit(ctx, nil, some); err != nil {
			return err
		}
	}
	return nil
}
