package store

import (
	"os"
	"testing"

	"lodge/gateway/sandboxtest"
)

// TestMain is also the process that TestKill kills, which needs no sandbox of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		os.Exit(victim(dir))
	}
	sandboxtest.Main(m)
}
