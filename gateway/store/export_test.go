package store

import (
	"context"
	"time"

	"lodge/gateway"
)

// OpenLogins opens Logins over any Shared.
func OpenLogins(ctx context.Context, shared gateway.Shared) (*Logins, error) {
	return openLogins(ctx, shared, time.Now)
}

// EncodeSecret returns a secret's key and value in Shared.
func EncodeSecret(key gateway.SecretKey, s gateway.Secret) (string, string) {
	return secretKey(key), string(encodeSecret(s))
}

// Held returns the keys of a set of secrets, as they are in memory.
func (l *Logins) Held(of gateway.SecretsOf) []gateway.SecretKey { return l.keys(selects(of)) }
