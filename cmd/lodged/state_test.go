package main

import (
	"testing"

	"lodge/gateway/gatewaytest"
)

// A start with another owner in the configuration records who is the owner and who was; one with the
// same owner records nothing.
func TestOwnersOfTheConfigurationAreRecorded(t *testing.T) {
	cfg := defaultConfig()
	cfg.StateDir, cfg.RunDir = t.TempDir(), t.TempDir()
	for _, start := range []struct{ owner, named, former string }{
		{"ann@example.org", "ann@example.org", ""},
		{"Ann@Example.org", "", ""},
		{"carol@example.org", "carol@example.org", "ann@example.org"},
		{"carol@example.org", "", ""},
	} {
		cfg.Owner = start.owner
		s, err := openState(t.Context(), cfg)
		gatewaytest.Must(t, err)
		var log gatewaytest.Log
		gatewaytest.Must(t, s.recordOwner(t.Context(), log.Logger()))
		gatewaytest.Must(t, s.close())
		for event, person := range map[string]string{"owner.named": start.named, "owner.former": start.former} {
			want := 0
			if person != "" {
				want = 1
			}
			if log.Count("event="+event) != want || log.Count("event="+event+" person="+person+" ") != want && want == 1 {
				t.Errorf("with the owner %s, want %s of %q:\n%s", start.owner, event, person, &log)
			}
		}
	}
}
