package storage

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

var kills = flag.Int("kills", 4, "how often TestKill kills the server")

// killID is the VM of TestKill, the same in every life of the server.
var killID = gateway.ID{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}

// TestChild is not a test: it is the server that TestKill starts and kills.
func TestChild(t *testing.T) {
	dir := os.Getenv("LODGE_KILL_DIR")
	if dir == "" {
		t.Skip("it runs as a child of TestKill only")
	}
	directory, err := gateway.OpenDirectory(t.Context(), new(gatewaytest.Records))
	if err != nil {
		t.Fatal(err)
	}
	m, err := directory.Create(t.Context(), gateway.VM{Identity: gateway.Identity{ID: killID, Name: "blog"}})
	if err != nil {
		t.Fatal(err)
	}
	old, err := directory.Create(t.Context(), gateway.VM{Identity: gateway.Identity{ID: expiringID, Name: "old"}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Dir: dir, Keyring: gateway.NewKeyring([32]byte{}, directory), Directory: directory, People: book(t), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Run(t.Context()) }()
	go s.expireAlways(t.Context())
	first, second := listenChild(t), listenChild(t)
	fmt.Printf("listening http://%s http://%s\n", first.Addr(), second.Addr())
	go serveChild(second, s.Handler(), old.Identity)
	serveChild(first, checkpoints(s), m.Identity)
}

func listenChild(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveChild serves a VM until the kill.
func serveChild(l net.Listener, h http.Handler, vm gateway.Identity) {
	_ = (&http.Server{Handler: h, ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return gateway.WithVM(ctx, vm) }}).Serve(l)
}

// child is one life of the server, with the addresses of its two VMs.
func child(t *testing.T, dir string) (url, expiring string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), "LODGE_KILL_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // SIGKILL
		_ = cmd.Wait()         // it was killed
	})
	t.Cleanup(kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if u, ok := strings.CutPrefix(lines.Text(), "listening "); ok {
			u, expiring, _ = strings.Cut(u, " ")
			return u, expiring, kill
		}
	}
	t.Fatalf("the server did not start: %v", lines.Err())
	return "", "", nil
}

// checkpoints serves S3, and at /checkpoint the server's own marks.
func checkpoints(s *Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := gateway.CheckpointID(r.FormValue("id"))
		var err error
		switch {
		case r.URL.Path != "/checkpoint":
			s.Handler().ServeHTTP(w, r)
			return
		case r.FormValue("do") == "mark":
			var release func()
			if release, err = s.Mark(r.Context(), killID, id); err == nil {
				release()
			}
		case r.FormValue("do") == "rewind":
			err = s.Rewind(r.Context(), killID, id)
		case r.FormValue("do") == "drop":
			err = s.Drop(r.Context(), killID, id)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
}

// TestKill kills the server at any moment, again and again, amid writes, marks and rewinds, and in another VM amid versions
// and their expiry: what it answered with 200 is there unless it was rewound or has expired, nothing is torn, nothing is back
// but by a rewind, nothing is left behind.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &ledger{now: map[string]contents{}, inFlight: map[string]string{}, marks: map[string]map[string]contents{}}
	versions := newVersionLog()
	for n := range *kills {
		url, expiring, kill := child(t, dir)
		if n == 0 {
			versions.prepare(t, client(t, expiring, "x", "y"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		written := make(chan struct{}, 1000)
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() {
				l.write(ctx, client(t, url, "x", "y"), w, func() {
					select {
					case written <- struct{}{}:
					default:
					}
				})
			})
		}
		workers.Go(func() { versions.write(ctx, client(t, expiring, "x", "y")) })
		open := ""
		workers.Go(func() { open = l.goBackAndForth(ctx, t, url) })
		for range 5 + rand.IntN(40) {
			select {
			case <-written:
			case <-ctx.Done():
				t.Fatal("nothing is written")
			}
		}
		kill()
		cancel()
		workers.Wait()
		url, expiring, kill = child(t, dir)
		l.recover(t, url, open)
		l.check(t, client(t, url, "x", "y"))
		versions.check(t, client(t, expiring, "x", "y"))
		if left := unfinished(t, dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		kill()
	}
	t.Logf("%d kills, %d marks, %d rewinds; %d versions, %d objects expired", *kills, len(l.marks), l.done, len(versions.kept), len(versions.gone))
	if l.done == 0 || len(versions.kept) == 0 || len(versions.gone) == 0 {
		t.Error("nothing was rewound, kept or expired")
	}
}
