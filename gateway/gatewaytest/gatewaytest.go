// Package gatewaytest has the helpers for tests of all packages: a Directory in memory, a log that
// can be read and counted, and waiting for a condition. A small full disk is in sandboxtest, since
// it needs a mount namespace.
//
// It never replaces the part under test: a test of the store opens the store.
package gatewaytest

import (
	"errors"
	"testing"
	"time"
)

// patience is how long Eventually waits. It is long, since the test machine may be slow and shared.
const patience = 30 * time.Second

// Eventually waits until check returns nil. After 30 s the test fails with check's last error.
func Eventually(tb testing.TB, check func() error) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %v", patience, err)
		}
	}
}

// WaitFor waits until cond holds. The test fails, naming what, when that takes 30 s.
func WaitFor(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	Eventually(tb, func() error {
		if cond() {
			return nil
		}
		return errors.New(what)
	})
}

// Must ends the test if err is not nil.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
