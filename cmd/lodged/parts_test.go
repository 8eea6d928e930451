package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// One endless request takes no time from the other servers, and does not make the daemon fail.
func TestServersShutDownSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		endless := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		var others error
		other := func(ctx context.Context) error {
			others = ctx.Err()
			return nil
		}
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		if err := shutAll(ctx, log, endless, other); err != nil || others != nil {
			t.Errorf("got %v; the others had no time: %v", err, others)
		}
		broken := errors.New("broken")
		if err := shutAll(ctx, log, func(context.Context) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}
