package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"lodge/gateway"
)

// lockState locks a state directory for one lodged. The lock ends with the process, however it
// ends.
func lockState(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(path) // only for the text below
		_ = f.Close()               // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, gateway.Errorf(gateway.KindConflict, "another lodged (process %s) works on this state directory", strings.TrimSpace(string(pid))).
				WithHint("Stop that one first, or give this one a state_dir of its own.")
		}
		return nil, fmt.Errorf("lock state: %w", err)
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		_ = f.Close() // the write's error is returned
		return nil, fmt.Errorf("write lock: %w", err)
	}
	return f, nil
}

func writePID(f *os.File) error {
	_, err := fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}
