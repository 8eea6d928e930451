package mail

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

var kills = flag.Int("kills", 12, "how often TestKill and TestKillIMAP kill the server")

// childDir is the environment variable that makes TestChild a mail server for TestKill. The VMs are
// in childVMs.
const (
	childDir = "LODGE_MAIL_TEST_DIR"
	childVMs = "LODGE_MAIL_TEST_VMS"

	childIMAP  = "LODGE_MAIL_TEST_IMAP"  // its address is that of the first VM's IMAP
	childMarks = "LODGE_MAIL_TEST_MARKS" // it makes marks of the first VM, and rewinds it
)

// TestChild is no test: it serves until it is killed.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("runs only as a child of TestKill")
	}
	g := &guest{}
	f := start(t, dir, func(c *Config) {
		if addr, keys, ok := strings.Cut(os.Getenv(childGuest), "\n"); ok {
			g.addr = addr
			g.keyFile, g.hostKey, _ = strings.Cut(keys, "\n")
			c.SSHKeyFile, c.Dial = g.keyFile, func(ctx context.Context, _ gateway.VM, _ uint16) (net.Conn, error) { return g.dial(ctx) }
		}
	})
	for i, text := range strings.Split(os.Getenv(childVMs), ",") {
		id, err := gateway.ParseID(text)
		gatewaytest.Must(t, err)
		vm := f.addAs(t, fmt.Sprint("vm", i), id, g.hostKey)
		if os.Getenv(childIMAP) != "" {
			fmt.Println("address", f.serveIMAP(t, vm))
		}
		if os.Getenv(childMarks) != "" && i == 0 {
			go goBackAndForth(t, f, vm.ID)
		}
	}
	fmt.Println("address", f.addr)
	<-t.Context().Done()
}

// goBackAndForth makes marks, moves the cursor as a delivery does, rewinds and drops, until the process is killed.
func goBackAndForth(t *testing.T, f *fixture, vm gateway.ID) {
	t.Helper()
	for {
		id := gateway.CheckpointID(gateway.NewID().String())
		release, err := f.Mark(t.Context(), vm, id)
		gatewaytest.Must(t, err)
		release()
		box, err := f.store.Box(vm)
		gatewaytest.Must(t, err)
		if e, ok := box.Pending(); ok {
			gatewaytest.Must(t, box.Park(e.UID))
		}
		gatewaytest.Must(t, box.Delivered(box.Snapshot().NextUID-1))
		ids, err := f.Marks(t.Context(), vm)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, f.Rewind(t.Context(), vm, ids[rand.IntN(len(ids))]))
		if len(ids) > 5 {
			gatewaytest.Must(t, f.Drop(t.Context(), vm, ids[0]))
		}
	}
}

// A server that is killed again and again while mail comes in, and is marked and rewound, loses nothing that it has
// accepted, has nothing twice, and its index opens each time. So do its marks.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	vms := []gateway.ID{gateway.NewID(), gateway.NewID()}
	accepted := &tokens{}
	for round := range *kills {
		addr, _, kill := child(t, dir, vms, childMarks+"=1")
		ctx, cancel := context.WithCancel(t.Context())
		var senders sync.WaitGroup
		for i := range 8 {
			senders.Go(func() { sendUntil(ctx, addr, fmt.Sprintf("r%d-s%d", round, i), accepted) })
		}
		wait := time.NewTimer(time.Duration(30+rand.IntN(200)) * time.Millisecond)
		<-wait.C
		kill()
		cancel()
		senders.Wait()
	}
	store, err := mailbox.Open(dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	defer store.Close()
	marks, err := store.Marks(vms[0])
	gatewaytest.Must(t, err)
	for _, id := range marks {
		gatewaytest.Must(t, store.Rewind(vms[0], id))
	}
	if len(marks) == 0 {
		t.Error("no mark was made")
	}
	for i, vm := range vms {
		found := bodies(t, store, vm)
		lost, twice := 0, 0
		for _, token := range accepted.of(i) {
			switch found[token] {
			case 0:
				lost++
			case 1:
			default:
				twice++
			}
		}
		t.Logf("vm %d: %d accepted, %d in the mailbox", i, len(accepted.of(i)), len(found))
		if lost > 0 || twice > 0 || len(accepted.of(i)) == 0 {
			t.Errorf("vm %d: %d of %d accepted messages lost, %d twice", i, lost, len(accepted.of(i)), twice)
		}
	}
}

// child starts a server process and returns its address and what kills it.
func child(tb testing.TB, dir string, vms []gateway.ID, env ...string) (addr string, p *exec.Cmd, kill func()) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "/proc/self/exe", "-test.run=^TestChild$", "-test.v")
	var ids []string
	for _, id := range vms {
		ids = append(ids, id.String())
	}
	cmd.Env = append(append(os.Environ(), childDir+"="+dir, childVMs+"="+strings.Join(ids, ",")), env...)
	out, err := cmd.StdoutPipe()
	gatewaytest.Must(tb, err)
	gatewaytest.Must(tb, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "address "); ok {
			return addr, cmd, func() {
				gatewaytest.Must(tb, cmd.Process.Kill())
				_ = cmd.Wait()
			}
		}
	}
	tb.Fatal("the child did not start")
	return "", nil, nil
}

// tokens are messages that got 250, by VM.
type tokens struct {
	mu  sync.Mutex
	all [2][]string
}

func (k *tokens) add(vm int, token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all[vm] = append(k.all[vm], token)
}

func (k *tokens) of(vm int) []string { return k.all[vm] }

// sendUntil sends messages until the server is gone, every third one to both VMs.
func sendUntil(ctx context.Context, addr, name string, accepted *tokens) {
	c, err := smtp.Dial(addr)
	if err != nil {
		return
	}
	defer c.Close()
	for n := 0; ctx.Err() == nil; n++ {
		token := fmt.Sprintf("token-%s-%d-", name, n)
		to := []int{n % 2}
		if n%3 == 0 {
			to = []int{0, 1}
		}
		if c.Mail("a@b.c") != nil {
			return
		}
		for _, vm := range to {
			if c.Rcpt(fmt.Sprintf("x@vm%d.%s", vm, domain)) != nil {
				return
			}
		}
		w, err := c.Data()
		if err != nil {
			return
		}
		fmt.Fprintf(w, "Subject: x\r\n\r\n%s\r\n%s\r\n", token, strings.Repeat("y", rand.IntN(5000)))
		if w.Close() != nil {
			return
		}
		for _, vm := range to {
			accepted.add(vm, token)
		}
	}
}

// bodies counts the token of each message that can be read in full.
func bodies(t *testing.T, store *mailbox.Store, vm gateway.ID) map[string]int {
	t.Helper()
	box, err := store.Box(vm)
	gatewaytest.Must(t, err)
	found := map[string]int{}
	for _, e := range box.Snapshot().Entries.All() {
		c, err := box.Open(e.UID)
		gatewaytest.Must(t, err)
		text := make([]byte, e.Bytes)
		if n, err := c.ReadAt(text, 0); n != len(text) {
			t.Fatalf("message %s: %d of %d bytes, %v", e.QueueID, n, e.Bytes, err)
		}
		c.Close()
		from := bytes.Index(text, []byte("token-"))
		to := bytes.Index(text[from:], []byte("\r\n"))
		found[string(text[from:from+to])]++
	}
	return found
}
