package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/store/storetest"
)

func TestSharedContract(t *testing.T) {
	for _, c := range storetest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, filepath.Join(t.TempDir(), "lodge.db")).Shared()
				c.Run(t, storetest.Subject{One: s, Two: s, Compact: s.Compact})
			})
		})
	}
}

// A restart keeps values, revisions and changes, and begins each lease anew.
func TestSharedSurvivesReopening(t *testing.T) {
	const life = time.Minute
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "lodge.db")
		s := open(t, path)
		lease, err := s.Shared().Lease(t.Context(), life)
		gatewaytest.Must(t, err)
		rev, err := s.Shared().Commit(t.Context(), nil, []gateway.Op{{Key: "a", Value: []byte("1"), Lease: lease.ID()}})
		gatewaytest.Must(t, err)
		<-time.After(life - time.Second)
		gatewaytest.Must(t, s.Close())
		shared := open(t, path).Shared()
		<-time.After(life - time.Second)
		if e, err := shared.Get(t.Context(), "a"); err != nil || string(e.Value) != "1" || e.Rev != rev {
			t.Errorf("%q at %d, %v; want it at %d", e.Value, e.Rev, err, rev)
		}
		var seen []string
		for event, err := range shared.Watch(t.Context(), "a", rev-1) {
			gatewaytest.Must(t, err)
			if seen = append(seen, string(event.Value)); event.Deleted {
				break
			}
		}
		if len(seen) != 2 {
			t.Errorf("watched %q, want the change and the deletion", seen)
		}
	})
}

// Closing the file ends a watch in another goroutine.
func TestCloseEndsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "lodge.db"))
		ended := make(chan error, 1)
		go func() {
			for _, err := range s.Shared().Watch(t.Context(), "", 1) {
				ended <- err
			}
		}()
		synctest.Wait()
		gatewaytest.Must(t, s.Close())
		if err := <-ended; err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
}

// Changes are dropped some time after they were made, so the file does not grow with them.
func TestOldChangesAreDropped(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "lodge.db")).Shared()
	var rev gateway.Revision
	for range 1002 {
		var err error
		rev, err = s.Commit(t.Context(), nil, []gateway.Op{{Key: "a"}})
		gatewaytest.Must(t, err)
	}
	for after, want := range map[gateway.Revision]error{1: gateway.ErrCompacted, rev - 1001: gateway.ErrCompacted, rev - 1000: nil} {
		for _, err := range s.Watch(t.Context(), "", after) {
			if !errors.Is(err, want) {
				t.Errorf("watch after %d of %d: %v, want %v", after, rev, err, want)
			}
			break
		}
	}
}

// childFile is the environment variable that makes TestChild write to that file for TestKill.
const childFile = "LODGE_STORE_TEST_FILE"

// TestChild is no test: it commits until it is killed, and prints each value that was acknowledged.
func TestChild(t *testing.T) {
	path := os.Getenv(childFile)
	if path == "" {
		t.Skip("runs only as a child of TestKill")
	}
	s := open(t, path).Shared()
	entry, err := s.Get(t.Context(), "a")
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(string(entry.Value)) // 0 at first
	for {
		n++
		value := []byte(strconv.Itoa(n))
		_, err := s.Commit(t.Context(), nil, []gateway.Op{{Key: "a", Value: value}, {Key: "b", Value: value}})
		gatewaytest.Must(t, err)
		fmt.Println("acknowledged", n)
	}
}

// A process that is killed at any moment loses nothing that it has acknowledged, and leaves no
// half.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	last := 0
	for range 8 {
		last = max(last, commitUntilKilled(t, path))
		s := open(t, path)
		a, errA := s.Shared().Get(t.Context(), "a")
		b, errB := s.Shared().Get(t.Context(), "b")
		gatewaytest.Must(t, errors.Join(errA, errB, s.Close()))
		if n, err := strconv.Atoi(string(a.Value)); err != nil || n < last || string(a.Value) != string(b.Value) || a.Rev != b.Rev {
			t.Errorf("%d was acknowledged; the file has %q at %d and %q at %d", last, a.Value, a.Rev, b.Value, b.Rev)
		}
	}
}

// commitUntilKilled runs TestChild for a moment and returns the last value that it acknowledged.
func commitUntilKilled(t *testing.T, path string) (last int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childFile+"="+path)
	out, err := cmd.StdoutPipe()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, cmd.Start())
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text, ok := strings.CutPrefix(lines.Text(), "acknowledged ")
		if !ok {
			continue
		}
		if last, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		if kill == nil { // it has begun
			kill = time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // it was killed
	if last == 0 {
		t.Fatal("the child acknowledged nothing")
	}
	return last
}
