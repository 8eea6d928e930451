package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// CreateOverlay makes a qcow2 disk of gib GiB at path, which must not exist. It has the content of
// the raw disk at base, an absolute path, until the guest writes; base must stay and never change.
// The partition is not extended: the guest does that. The disk is complete and synced, or absent.
// Errors as those of Create.
func CreateOverlay(ctx context.Context, path, base string, gib int) error {
	info, err := os.Stat(base)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := checkSize(gib, info.Size()); err != nil {
		return err
	}
	draft := path + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a crash
		return fmt.Errorf("make disk: %w", err)
	}
	cmd := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, draft, strconv.Itoa(gib)+"G") //nolint:gosec // paths of lodged
	out, err := cmd.CombinedOutput()
	if err != nil {
		_ = os.Remove(draft) // the error above matters more
		return fmt.Errorf("make disk: %w", cmp.Or(ctx.Err(), explain(string(out), err)))
	}
	err = errors.Join(os.Chmod(draft, 0o600), durable.Sync(draft))
	if err == nil {
		err = renameNew(draft, path)
	}
	if err != nil {
		_ = os.Remove(draft) // as above
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// explain returns the error for what qemu-img has written, or err if that is nothing.
func explain(out string, err error) error {
	text := strings.TrimSpace(out)
	switch {
	case text == "":
		return err
	case strings.HasSuffix(text, "No space left on device"):
		return fmt.Errorf("%s: %w", text, syscall.ENOSPC)
	default:
		return errors.New(text)
	}
}

// checkSize refuses a disk that is smaller than what it begins with.
func checkSize(gib int, least int64) error {
	if int64(gib)<<30 >= least {
		return nil
	}
	return gateway.Invalid("a disk of %d GiB is too small for the image", gib).
		WithHint("Use at least %d GiB.", (least+1<<30-1)>>30)
}

// CopyTemp is Copy for a file that no crash has to survive: it is not synced, and replaces what is
// at to. After an error there is none.
func CopyTemp(ctx context.Context, to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	defer func() { _ = in.Close() }() // it was only read
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	if err := errors.Join(fill(ctx, out, in, info.Size()), out.Truncate(info.Size()), out.Close()); err != nil {
		_ = os.Remove(to) // the error above matters more
		return fmt.Errorf("copy file: %w", err)
	}
	return nil
}

// Base returns the path of the disk below a qcow2 one, or an empty string
// (https://qemu-project.gitlab.io/qemu/interop/qcow2.html).
func Base(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read base of disk: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	header := make([]byte, 20)
	if _, err := f.ReadAt(header, 0); err != nil {
		return "", fmt.Errorf("read base of disk: %w", err)
	}
	const maxName = 1023
	at, length := binary.BigEndian.Uint64(header[8:]), binary.BigEndian.Uint32(header[16:])
	if string(header[:4]) != "QFI\xfb" || length > maxName || at > 1<<20 {
		return "", errors.New("read base of disk: not a qcow2 disk")
	}
	name := make([]byte, length)
	if _, err := f.ReadAt(name, int64(at)); err != nil { //nolint:gosec // limited above
		return "", fmt.Errorf("read base of disk: %w", err)
	}
	return string(name), nil
}
