package storage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
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

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

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
	s, err := New(Config{Dir: dir, Keyring: gateway.NewKeyring([32]byte{}, directory), Directory: directory, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Run(t.Context()) }()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("listening http://%s\n", l.Addr())
	_ = (&http.Server{Handler: s.Handler(), ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return gateway.WithVM(ctx, m.Identity) }}).Serve(l)
}

// child is one life of the server.
func child(t *testing.T, dir string) (url string, kill func()) {
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
			return u, kill
		}
	}
	t.Fatalf("the server did not start: %v", lines.Err())
	return "", nil
}

// ledger has what was sent for each key, and the last that the server answered with 200.
type ledger struct {
	mu    sync.Mutex
	sent  map[string]map[string]bool // key → MD5s of every content ever sent
	sure  map[string]string          // key → MD5 of the last content that was answered with 200
	after map[string]map[string]bool // key → MD5s sent after that, of which any may be there
}

func (l *ledger) send(key, sum string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent[key] == nil {
		l.sent[key], l.after[key] = map[string]bool{}, map[string]bool{}
	}
	l.sent[key][sum], l.after[key][sum] = true, true
}

func (l *ledger) done(key, sum string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sure[key] = sum
	l.after[key] = map[string]bool{}
}

// write stores objects, each worker below keys of its own, until the server is gone.
func (l *ledger) write(ctx context.Context, c *minio.Client, worker int, done func()) {
	for ctx.Err() == nil {
		key := fmt.Sprintf("w%d/k%d", worker, rand.IntN(4))
		size, opts := 1+rand.IntN(200_000), minio.PutObjectOptions{DisableMultipart: true}
		if rand.IntN(8) == 0 {
			size, opts = 6<<20, minio.PutObjectOptions{PartSize: 5 << 20}
		}
		data := random(size)
		sum := md5.Sum(data)
		name := hex.EncodeToString(sum[:])
		l.send(key, name)
		if _, err := c.PutObject(ctx, "box", key, bytes.NewReader(data), int64(size), opts); err != nil {
			return
		}
		l.done(key, name)
		done()
	}
}

// check reads everything back: each key has what the server answered with 200, or all of what was
// sent to it after that.
func (l *ledger) check(t *testing.T, c *minio.Client) {
	t.Helper()
	seen := map[string]bool{}
	for o := range c.ListObjects(t.Context(), "box", minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		r, err := c.GetObject(t.Context(), "box", o.Key, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h := md5.New()
		if _, err := io.Copy(h, r); err != nil {
			t.Fatalf("read %s: %v", o.Key, err)
		}
		sum := hex.EncodeToString(h.Sum(nil))
		seen[o.Key] = true
		if sum != l.sure[o.Key] && !l.after[o.Key][sum] {
			t.Errorf("%s has %s (sent at some time: %v); the server answered %s with 200", o.Key, sum, l.sent[o.Key][sum], l.sure[o.Key])
		}
		l.done(o.Key, sum)
	}
	for key := range l.sure {
		if !seen[key] {
			t.Errorf("%s is gone", key)
		}
	}
}

// TestKill kills the server at any moment, again and again: what it answered with 200 is there, nothing
// is torn, nothing is left behind.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &ledger{sent: map[string]map[string]bool{}, sure: map[string]string{}, after: map[string]map[string]bool{}}
	for range 6 {
		url, kill := child(t, dir)
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
		url, kill = child(t, dir)
		l.check(t, client(t, url, "x", "y"))
		if left := unfinished(t, dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		kill()
	}
}
