package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one that runs.
type server struct {
	name   string
	addr   string
	keys   *signer // nil: requests are not signed
	cmd    *exec.Cmd
	dir    string
	begun  time.Time
	static bool // it serves files, and takes none
}

// startLodged starts this program's own storage.Server on a directory.
func (b *bench) startLodged(ctx context.Context, dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{name: "lodged", dir: dir}
	out, err := s.launch(ctx, nil, self, "lodged", dir)
	if err != nil {
		return nil, err
	}
	text, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, s.died(err)
	}
	var access, secret string
	if _, err := fmt.Sscan(text, &s.addr, &access, &secret); err != nil {
		return nil, fmt.Errorf("lodged printed %q: %w", text, err)
	}
	s.keys = newSigner(access, secret)
	return s, nil
}

const access, secret = "bench", "benchbench"

// startPeers starts the other servers that are found, and prints which are not.
func (b *bench) startPeers(ctx context.Context) (all []*server, err error) {
	for _, p := range []struct {
		name, program, install string
		env                    []string
		args                   func(dir, addr string) []string
	}{
		{
			"minio", b.minio, "make bench-s3 builds it",
			[]string{"MINIO_ROOT_USER=" + access, "MINIO_ROOT_PASSWORD=" + secret, "MINIO_CI_CD=on", "MINIO_BROWSER=off"},
			func(dir, addr string) []string { return []string{"server", "--address", addr, dir} },
		},
		{
			"versitygw", b.versitygw, "make bench-s3 builds it", nil,
			func(dir, addr string) []string {
				return []string{"--access", access, "--secret", secret, "--port", addr, "--quiet", "--keep-alive", "posix", dir}
			},
		},
		{"nginx", "nginx", "apt-get install nginx", nil, nginxArgs},
	} {
		program, err := exec.LookPath(p.program)
		if err != nil {
			fmt.Printf("%s is missing, and left out: %s\n", p.name, p.install)
			continue
		}
		s, err := b.startPeer(ctx, p.name, program, p.env, p.args)
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (b *bench) startPeer(ctx context.Context, name, program string, env []string, args func(dir, addr string) []string) (*server, error) {
	s := &server{name: name, dir: filepath.Join(b.dir, name), static: name == "nginx"}
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(filepath.Join(data, bucket), 0o755); err != nil { //nolint:gosec // nginx's workers have another user
		return nil, err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { //nolint:gosec // as above
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if !s.static {
		s.keys = newSigner(access, secret)
	} else if err := os.WriteFile(filepath.Join(s.dir, "nginx.conf"), fmt.Appendf(nil, nginxConf, s.dir, s.addr), 0o600); err != nil {
		return nil, err
	}
	if _, err := s.launch(ctx, env, program, args(data, s.addr)...); err != nil {
		return nil, err
	}
	return s, s.listening(ctx)
}

// nginxConf serves files, with logs off.
const nginxConf = `
worker_processes auto; daemon off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
	access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; sendfile on; tcp_nopush on;
	server { listen %[2]s; location / { root %[1]s/data; } }
}
`

func nginxArgs(data, _ string) []string {
	return []string{"-c", filepath.Join(filepath.Dir(data), "nginx.conf")}
}

// launch starts a program whose errors go to a file, and returns its standard output.
func (s *server) launch(ctx context.Context, env []string, program string, args ...string) (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	defer func() { _ = errors.Join(log.Close(), write.Close()) }() // the program has its own copies
	s.cmd = exec.CommandContext(ctx, program, args...)             //nolint:gosec // a program of the table
	s.cmd.Env = append(append(os.Environ(), "HOME="+s.dir), env...)
	s.cmd.Stderr = log
	if s.cmd.Stdout = write; s.name != "lodged" {
		s.cmd.Stdout = log // nobody reads it
	}
	s.begun = time.Now()
	return read, s.cmd.Start()
}

func (s *server) log() string { return filepath.Join(s.dir, "log") }

func (s *server) died(err error) error {
	text, _ := os.ReadFile(s.log()) // more about the error
	return fmt.Errorf("%s does not run: %w: %s", s.name, err, text)
}

// listening waits until the server accepts connections.
func (s *server) listening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s.died(err)
		}
	}
}

// stop ends the server, and removes its directory.
func (s *server) stop() {
	s.end()
	_ = os.RemoveAll(s.dir) // else it goes with the run's
}

func (s *server) end() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = s.cmd.Wait()                          // its status does not matter now
}

// memory is the most that the server's process had, or has, in MiB: "VmHWM", "VmRSS".
func (s *server) memory(what string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\n"+what+":")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", s.name, err)
	}
	return kib / 1024, nil
}

// cpu is the time that the server's threads have used.
func (s *server) cpu() (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it takes no time
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
