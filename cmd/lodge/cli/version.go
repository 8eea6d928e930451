package cli

import (
	"context"
	"errors"
	"io"
	"runtime/debug"

	"lodge/gateway/api"
	"lodge/gateway/control"
)

type versionCmd struct{}

// Run shows both versions. It succeeds without a daemon.
func (*versionCmd) Run(ctx context.Context, a *app) error {
	answer := struct {
		Lodge  string      `json:"lodge"`
		Lodged *api.Health `json:"lodged"` // null when it is not running
	}{Lodge: ownVersion()}
	daemon := "not running"
	health, err := a.client.Health(ctx)
	switch {
	case err == nil:
		answer.Lodged, daemon = &health, health.Version
		if !health.Ready {
			daemon += " (not ready: " + health.Reason + ")"
		}
	case !errors.Is(err, control.ErrNotRunning):
		return err
	}
	return a.print(answer, func(w io.Writer) {
		row(w, "lodge", answer.Lodge)
		row(w, "lodged", daemon)
	})
}

// ownVersion returns the version that the Go tool wrote into the binary.
func ownVersion() string {
	if build, ok := debug.ReadBuildInfo(); ok && build.Main.Version != "" {
		return build.Main.Version
	}
	return "unknown"
}
