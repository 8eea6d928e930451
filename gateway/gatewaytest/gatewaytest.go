// Package gatewaytest is what the tests of all packages need: a Directory in memory, a log that can be read and counted,
// and waiting for what must come. A small full disk is in sandboxtest, since it needs a mount namespace.
//
// It never stands for a part that a test is about: a test of the store opens the store.
package gatewaytest

import (
	"errors"
	"testing"
	"time"
)

// patience is how long Eventually waits: generous, since the test machine may be slow and shared.
const patience = 30 * time.Second

// Eventually waits until check returns nil. The test fails with check's last error when that takes 30 s.
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
