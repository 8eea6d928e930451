package smtpd

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"lodge/gateway/gatewaytest"
)

var (
	transcripts = flag.Int("transcripts", 300, "random transcripts that are compared with go-smtp's server")
	withPostfix = flag.Bool("postfix", false, "compare them with Debian's Postfix too; it must be installed")
)

// step is what a client sends before it waits for one reply. After 354 it sends body.
type step struct{ line, body string }

// theirs is another server.
type theirs struct {
	name  string
	addr  string
	known []difference
}

// difference is a place where another server replies otherwise, and why. The others are regular
// expressions that the step is, and the replies begin with.
type difference struct{ step, ours, theirs, why string }

// TestTranscripts sends the same random commands to this server and to others, and compares the
// replies by their first digits, and what was kept. Each difference is one that is explained.
func TestTranscripts(t *testing.T) {
	h := serve(t, func(c *Config) { c.DSN = false })
	others := []theirs{goSMTP(t)}
	if *withPostfix {
		others = append(others, postfix(t))
	}
	seed := uint64(1)
	if *withPostfix { // the long run
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d transcripts of seed %d", *transcripts, seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test that can be repeated
	seen := map[string]int{}
	for range *transcripts {
		steps := transcript(random)
		for _, o := range others {
			h.compare(t, o, steps, seen)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%4d × %s", seen[why], why)
	}
}

// transcript makes a session, in which most commands are sensible.
func transcript(r *rand.Rand) []step {
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	steps := []step{{line: pick("EHLO x", "EHLO x", "EHLO x", "HELO x", "ehlo [127.0.0.1]")}}
	for range 4 + r.IntN(12) {
		var s step
		switch r.IntN(16) {
		case 0, 1:
			s.line = pick("MAIL FROM:<a@b.c>", "MAIL FROM:<a@b.c>", "MAIL FROM:<>", "mail from:<a@b.c> SIZE=100", "MAIL FROM:<a@b.c> BODY=8BITMIME",
				"MAIL FROM:<a@b.c> SIZE=2000000", "MAIL FROM:<a@b.c> FOO=bar", "MAIL FROM: <a@b.c>", "MAIL", "MAIL TO:<a@b.c>", "MAIL FROM:<a@b.c", "MAIL FROM:<\"a b\"@b.c>")
		case 2, 3, 4:
			s.line = pick("RCPT TO:<x@blog.lodge.test>", "RCPT TO:<x@blog.lodge.test>", "RCPT TO:<y@BLOG.lodge.test>", "RCPT TO:<x@none.example>",
				"rcpt to:<x@blog.lodge.test>", "RCPT TO:<>", "RCPT", "RCPT TO:<x@blog.lodge.test> FOO", "RCPT TO:<\"x y\"@blog.lodge.test>", "RCPT TO:<x@y@blog.lodge.test>")
		case 5, 6:
			s.line, s.body = pick("DATA", "DATA", "data"), text(r)
			s.body = strings.ReplaceAll("\r\n"+s.body, "\r\n.", "\r\n..")[2:] + ".\r\n"
		case 7:
			s = chunk(r)
		case 8:
			s.line = pick("RSET", "RSET", "NOOP", "NOOP x", "VRFY x", "HELP", "EXPN x", "", "FOO", "DATA x", "EHLO y", "HELO y", "EHLO", "STARTTLS", "AUTH PLAIN", "RSET x", "QUIT")
		case 9, 10, 11: // chunks where they may be
			steps = append(steps, step{line: "RSET"}, step{line: "MAIL FROM:<a@b.c>"}, step{line: "RCPT TO:<x@blog.lodge.test>"}, chunk(r), chunk(r))
			continue
		default:
			steps = append(steps, step{line: "MAIL FROM:<a@b.c>"}, step{line: "RCPT TO:<x@blog.lodge.test>"})
			continue
		}
		steps = append(steps, s)
	}
	return steps
}

// chunk makes a BDAT with a message or the first part of one.
func chunk(r *rand.Rand) step {
	all := text(r)
	if at := r.IntN(len(all) + 1); r.IntN(2) == 0 {
		all = all[:at]
	}
	last := []string{"", " LAST", " LAST", " last"}[r.IntN(4)]
	return step{line: fmt.Sprintf("BDAT %d%s\r\n%s", len(all), last, all)}
}

// text makes a message, most of them good. The last line is, since go-smtp's DATA does not see the end
// behind one that ends in CR CR LF.
func text(r *rand.Rand) string {
	lines := []string{"Subject: x", "", ".", "..", ".x", "x", "DATA", "QUIT", "BDAT 5 LAST", strings.Repeat("y", 500), "\u00e9", "Received: x"}
	var b strings.Builder
	for n := r.IntN(8); n > 0; n-- {
		b.WriteString(lines[r.IntN(len(lines))])
		if n > 1 && r.IntN(60) == 0 {
			b.WriteString([]string{"\n", "\rx", "\r", "\n\rx"}[r.IntN(4)])
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

// compare sends the same to both, until they differ or one hangs up.
func (h *host) compare(t *testing.T, o theirs, steps []step, seen map[string]int) {
	t.Helper()
	ours, other := h.connect(t), (&host{addr: o.addr}).connect(t)
	defer ours.Close()
	defer other.Close()
	ours.want("220")
	other.want("220")
	var history []string
	for _, s := range steps {
		a, b := ours.ask(s), other.ask(s)
		history = append(history, fmt.Sprintf("%.60q: %.70q, %s: %.70q", s.line, a, o.name, b))
		for _, d := range o.known {
			if matches(d.step+"$", s.line) && matches(d.ours, a) && matches(d.theirs, b) {
				seen[o.name+" "+d.why]++
				return // from here on they are in different states
			}
		}
		if class(a) == class(b) && sameBody(a, b) {
			if class(a) == "4" || a == "" || strings.HasPrefix(a, "221") {
				return
			}
			continue
		}
		key := fmt.Sprintf("%.20s %.3s %.3s", s.line, a, b)
		if seen[key]++; seen[key] == 1 { // the others are alike
			t.Errorf("%s differs:\n%s", o.name, strings.Join(history, "\n"))
		}
		return
	}
}

func matches(pattern, text string) bool {
	return regexp.MustCompile("(?is)^" + pattern).MatchString(text)
}

// sameBody reports whether two replies are about the same message, if they name it.
func sameBody(a, b string) bool {
	_, mine, _ := strings.Cut(a, "OK: queued as ")
	_, its, ok := strings.Cut(b, "OK: queued as ")
	return !ok || mine == its
}

// ask sends a step, and returns the reply to all of it: empty if the connection ended.
func (c *client) ask(s step) string {
	ending := "\r\n"
	if strings.HasPrefix(strings.ToUpper(s.line), "BDAT") {
		ending = ""
	}
	_, _ = io.WriteString(c, s.line+ending) // the answer shows it
	line, _ := c.answer()
	if strings.HasPrefix(line, "354") && s.body != "" {
		_, _ = io.WriteString(c, s.body)
		line, _ = c.answer()
	}
	return line
}

func class(reply string) string { return reply[:min(len(reply), 1)] }

// beGoSMTP is the environment variable that makes this program go-smtp's server.
const beGoSMTP = "LODGE_TEST_GO_SMTP"

// TestMain runs the tests, or go-smtp's server: that has data races, which would fail the tests.
func TestMain(m *testing.M) {
	if os.Getenv(beGoSMTP) == "" {
		os.Exit(m.Run())
	}
	s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return goSession{}, nil }))
	s.Domain, s.MaxMessageBytes, s.MaxRecipients = "lodge.test", 1<<20, maxRecipients
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it serves until it is killed
	if err != nil {
		panic(err)
	}
	fmt.Println("address", l.Addr())
	_ = s.Serve(l)
}

// goSMTP runs go-smtp's server, with a backend that takes what a shelf takes.
func goSMTP(t *testing.T) theirs {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), beGoSMTP+"=1")
	out, err := cmd.StdoutPipe()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // killed with the context
	addr := ""
	if _, err := fmt.Fscanf(out, "address %s\n", &addr); err != nil {
		t.Fatalf("go-smtp did not start: %v", err)
	}
	return theirs{name: "go-smtp", addr: addr, known: goDifferences}
}

type goSession struct{}

func (goSession) Mail(string, *gosmtp.MailOptions) error { return nil }

func (goSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if !strings.HasSuffix(strings.ToLower(to), "@blog.lodge.test") {
		return &gosmtp.SMTPError{Code: 550, Message: "User unknown"}
	}
	return nil
}

func (goSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return &gosmtp.SMTPError{Code: 250, EnhancedCode: gosmtp.EnhancedCode{2, 0, 0}, Message: "OK: queued as " + digest(body)}
}

func (goSession) Reset()        {}
func (goSession) Logout() error { return nil }

var goDifferences = []difference{
	{"bdat .+", "50", "50", "runs the chunk of a refused BDAT as commands"},
	{"(bdat|data).*", "554 5.6.0", "250", "takes bare CR and LF"},
	{"mail .*", "503", "250", "takes a second MAIL"},
	{"rcpt .*", "553 5.1.3", "250", "takes a second @"},
	{"help", "214", "502", "has no HELP"},
	{".*", "", "500 5.5.1 Too many errors", "hangs up after four errors, with a second reply"},
	{"bdat .+", "250", "554 5.0.0 Error: transaction failed", "mixes up the outcomes of two messages"},
}
