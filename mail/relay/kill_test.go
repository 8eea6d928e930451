package relay

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
	"lodge/mail/verdict"
)

// childArgs is the environment variable that makes TestChild a queue for TestKill: directory, address of
// DNS, port.
const childArgs = "LODGE_RELAY_TEST"

// TestChild is no test: it sends mail and prints what is queued until it is killed.
func TestChild(t *testing.T) {
	args := strings.Split(os.Getenv(childArgs), ",")
	if len(args) != 3 {
		t.Skip("runs only as a child of TestKill")
	}
	q := killable(t, args[0], args[1], args[2])
	go func() { _ = q.Run(t.Context()) }()
	for n := range 4 {
		go func() {
			for i := 0; ; i++ {
				token := fmt.Sprintf("token-%d-%d-%d-", os.Getpid(), n, i)
				vm := gateway.Identity{ID: gateway.ID{15: byte(10 + n)}, Name: fmt.Sprint("vm", n)}
				body := strings.NewReader(fmt.Sprintf(text, token) + strings.Repeat("yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", rand.IntN(100)))
				_, err := q.Send(t.Context(), Message{VM: vm, From: "a@vm." + us, To: []string{"x@far.example", "slow@far.example"}, Body: body})
				if err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Println("queued", token)
			}
		}()
	}
	fmt.Println("started")
	<-t.Context().Done()
}

func killable(t *testing.T, dir, dns, port string) *Queue {
	t.Helper()
	boxes, err := mailbox.Open(filepath.Join(dir, "mail"), slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	t.Cleanup(boxes.Close)
	limits := DefaultLimits()
	limits.Rate, limits.RateOfVM, limits.RateOfDest = 1e6, 1e6, 1e6
	q, err := New(Config{
		Dir: filepath.Join(dir, "out"), Domain: us, Mailboxes: boxes, Resolver: verdict.NewResolver("", dns), Limits: limits, Times: fast(),
		Logger: slog.New(slog.DiscardHandler), port: port, inside: true,
	})
	gatewaytest.Must(t, err)
	return q
}

// A queue that is killed again and again loses nothing that it has taken. A recipient gets a message twice
// only if it was on its way when the queue was killed.
func TestKill(t *testing.T) {
	t.Parallel()
	got := map[string]int{}
	far := (&sink{rcpt: func(to string) error {
		if strings.HasPrefix(to, "slow") && rand.IntN(3) == 0 {
			return reply(451, 4, 7, 1, "later")
		}
		return nil
	}}).serve(t, "127.0.0.1", "", nil)
	zone := domainstest.Start(t, "far.example. A 127.0.0.1")
	dir := t.TempDir()
	var queued []string
	const rounds = 10
	for range rounds {
		queued = append(queued, killed(t, dir+","+zone.Addr+","+far.port)...)
	}
	q := killable(t, dir, zone.Addr, far.port)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = q.Run(ctx) })
	gatewaytest.WaitFor(t, "an empty queue", func() bool { return q.allRead() && q.Waiting() == 0 })
	cancel()
	running.Wait()
	q.Close()
	for _, m := range far.all() {
		at := strings.Index(m.text, "token-")
		token, _, _ := strings.Cut(m.text[at:], "\r\n")
		for _, to := range m.to {
			got[token+" "+to]++
		}
	}
	lost, twice := 0, 0
	for _, token := range queued {
		for _, to := range []string{"x@far.example", "slow@far.example"} {
			if got[token+" "+to] == 0 {
				lost++
			}
		}
	}
	for _, n := range got {
		twice += n - 1
	}
	t.Logf("%d queued, %d of recipients lost, %d twice", len(queued), lost, twice)
	if most := rounds * 2 * DefaultLimits().ConnectionsOfDest; lost > 0 || twice > most || len(queued) == 0 {
		t.Errorf("%d queued, %d lost, %d twice, at most %d", len(queued), lost, twice, most)
	}
}

// killed runs a queue, kills it, and returns what it has taken.
func killed(t *testing.T, args string) (queued []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childArgs+"="+args)
	out, err := cmd.StdoutPipe()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, cmd.Start())
	var kill *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		token, ok := strings.CutPrefix(line, "queued ")
		switch {
		case ok:
			queued = append(queued, token)
		case line == "started":
			kill = time.AfterFunc(time.Duration(50+rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		case strings.HasPrefix(line, "error"):
			t.Error(line)
		}
	}
	if kill == nil {
		t.Fatal("the child did not start")
	}
	_ = cmd.Wait() // killed
	return queued
}
