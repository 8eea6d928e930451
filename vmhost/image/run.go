package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"lodge/gateway"
)

// stopLimit is how long the output of a killed program may stay open.
const stopLimit = 10 * time.Second

// tailBytes is how much of a program's last output is kept for the error.
const tailBytes = 4 << 10

// command is the input and output of a program.
type command struct {
	stdin io.Reader
	line  func(string) // called with each line of output
}

// run runs a program to its end, with a fixed environment, in process and mount namespaces of its
// own (unshare(1)). When ctx or this process ends, even by SIGKILL, the kernel ends all that the
// program has started and removes its mounts. On an error the last lines of output are searched for
// causes that have a remedy.
func (b *build) run(ctx context.Context, c *command, program string, args ...string) error {
	path, err := find(program)
	if err != nil {
		return missingPackage(program, tools()[program])
	}
	var out output
	args = append([]string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", path}, args...)
	cmd := exec.CommandContext(ctx, "/usr/bin/unshare", args...)
	if c != nil {
		cmd.Stdin, out.line = c.stdin, c.line
	}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir, cmd.Env = "/", environment()
	cmd.ExtraFiles = []*os.File{b.lock} // a process that outlives this one holds the lock
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = stopLimit
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	err = cmd.Run()
	runtime.UnlockOSThread()
	if ctx.Err() != nil {
		return ctx.Err() //nolint:wrapcheck // cancelled by the caller
	}
	if err != nil {
		return explain(program, string(out.tail), err)
	}
	return nil
}

// environment is fixed but for the proxy of the host.
func environment() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "TMPDIR=/tmp", "DEBIAN_FRONTEND=noninteractive"}
	for _, key := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+value)
		}
	}
	return env
}

// explain derives the error from the last lines of a program's output.
func explain(program, tail string, err error) error {
	err = fmt.Errorf("run %s: %w: %s", program, err, strings.TrimSpace(tail))
	switch {
	case strings.Contains(tail, "No space left on device"):
		return errors.Join(err, syscall.ENOSPC)
	case strings.Contains(tail, "Could not resolve") || strings.Contains(tail, "Unable to connect") || strings.Contains(tail, "Failed to fetch") ||
		strings.Contains(tail, "Could not connect"):
		return gateway.Errorf(gateway.KindUnavailable, "the Debian mirror does not answer: %s", reason(tail)).
			WithHint("Check the network and run the build again. The variable http_proxy sets a proxy.").Because(err)
	case strings.Contains(tail, "NO_PUBKEY") || strings.Contains(tail, "signed-by"):
		return gateway.Errorf(gateway.KindUnavailable, "the keys of that Debian release are not installed").
			WithHint("apt-get install --only-upgrade debian-archive-keyring").Because(err)
	}
	return gateway.Errorf(gateway.KindInternal, "%s failed: %s", program, reason(tail)).Because(err)
}

// reason is the first line of tail that begins with "E: ", else the last line.
func reason(tail string) string {
	lines := strings.Split(strings.TrimSpace(tail), "\n")
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "E: "); ok {
			return text
		}
	}
	return lines[len(lines)-1]
}

// output passes lines on and keeps the tail of what is written.
type output struct {
	line func(string)
	part []byte // of a line
	tail []byte
}

// Write implements io.Writer. Lines longer than tailBytes are passed on in pieces.
func (o *output) Write(p []byte) (int, error) {
	o.tail = append(o.tail, p...)
	o.tail = slices.Clone(o.tail[max(0, len(o.tail)-tailBytes):])
	o.part = append(o.part, p...)
	for {
		end := bytes.IndexByte(o.part, '\n')
		if end < 0 && len(o.part) < tailBytes {
			return len(p), nil
		}
		line := o.part[:max(end, 0)]
		if end < 0 {
			line, end = o.part, len(o.part)-1
		}
		if o.line != nil {
			o.line(string(line))
		}
		o.part = o.part[end+1:]
	}
}
