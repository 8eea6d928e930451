// Package sandboxtest runs a package's tests as root in network, mount, pid, ipc and uts namespaces
// of their own.
//
//	func TestMain(m *testing.M) { sandboxtest.Main(m, sandboxtest.Tmpfs("/run/lodge")) }
//
// Main runs the same test binary in three processes. The outermost makes the namespaces and waits.
// The second is their pid 1: it mounts /proc and /sys anew, brings lo up, reaps orphans (a
// daemonized QEMU is one, and libvirt waits until its pid is gone) and forwards signals. The third
// runs the tests. When pid 1 ends, however it ends, the kernel ends all processes inside and
// removes the interfaces and the mounts: nothing leaks, not even after kill -9.
//
// It never changes the machine's own namespaces, and files are not in a namespace: tests still use
// t.TempDir.
package sandboxtest

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
)

// marker is the environment variable with the stage of the sandbox: "init" for pid 1, then the name
// of the network namespace of the tests. Fuzz workers inherit it, so they start no sandbox of their
// own.
const marker = "LODGE_SANDBOX"

// Option changes the sandbox before the tests run. Options are applied in order, by pid 1.
type Option func() error

// Main runs m's tests in a sandbox and exits with their exit code. It never returns.
func Main(m *testing.M, options ...Option) {
	switch stage := os.Getenv(marker); {
	case stage == "init" && os.Getpid() == 1:
		os.Exit(initialize(options))
	case stage != "" && stage == netNamespace():
		os.Exit(m.Run())
	default:
		os.Exit(outside())
	}
}

// netNamespace names the network namespace that this process is in, such as "net:[4026532008]".
func netNamespace() string {
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return name
}

// outside makes the namespaces, starts pid 1 in them and waits for its exit code.
func outside() int {
	if os.Geteuid() != 0 {
		return fail("these tests make network namespaces and virtual machines, so they need root: sudo -E make test")
	}
	runtime.LockOSThread()                                // Pdeathsig is sent when the thread ends that started the child
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it lives as long as this process
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"=init")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := forwardable()
	if err := cmd.Start(); err != nil {
		return fail("make namespaces (they need CAP_SYS_ADMIN): %v", err)
	}
	go forward(signals, cmd.Process.Pid)
	_ = cmd.Wait() // the state below has its result
	return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus))
}

// forwardable catches the signals that end tests: from a terminal, or from go test at its timeout.
func forwardable() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	return signals
}

func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		_ = syscall.Kill(pid, s.(syscall.Signal)) // it fails only if the process has ended
	}
}

// exitCode is the exit code as a shell shows it.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func fail(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "sandbox: "+format+"\n", args...)
	return 1
}
