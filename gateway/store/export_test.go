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
