package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"lodge/gateway/durable"
)

func TestWriteFileReplacesAndLeavesNothingElse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	for _, content := range []string{"one", "a longer second", ""} {
		if err := durable.WriteFile(file, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestWriteFileThatFailsLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "occupied") // a directory: the rename fails after everything else has worked
	if err := os.MkdirAll(filepath.Join(target, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(target, []byte("x"), 0o600); err == nil {
		t.Fatal("replaced a directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("directory has %v, %v", entries, err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "none", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestIsFull(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("put: %w", syscall.ENOSPC):                      true,
		&os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}: true,
		syscall.EIO: false,
		nil:         false,
	} {
		if got := durable.IsFull(err); got != want {
			t.Errorf("%v: got %v", err, got)
		}
	}
}
