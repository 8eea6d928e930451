package hello_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "copy page.py into user-data.yaml")

// marker is the line of user-data.yaml after which page.py follows, indented.
const (
	marker = "  - path: /usr/local/lib/hello/page.py\n    content: |\n"
	indent = "      "
)

func TestUserDataCarriesPage(t *testing.T) {
	page, userData := read(t, "page.py"), read(t, "user-data.yaml")
	head, have, ok := strings.Cut(userData, marker)
	if !ok {
		t.Fatalf("user-data.yaml has no line %q", marker)
	}
	want := indented(page)
	if *update {
		if err := os.WriteFile("user-data.yaml", []byte(head+marker+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("user-data.yaml does not carry page.py; run go test ./docs/... -update (- page, + user data):\n%s", diff)
	}
	if strings.Contains(page, "\t") || strings.Contains(page, "\r") || !strings.HasSuffix(page, "\n") {
		t.Error("page.py has characters that a YAML block would not carry as they are")
	}
}

func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString(indent)
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestPage runs the page against a Maildir and a bucket in memory.
func TestPage(t *testing.T) {
	maildir, bucket := t.TempDir(), &bucket{files: map[string][]byte{}}
	if err := os.Mkdir(filepath.Join(maildir, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	s3 := httptest.NewServer(bucket)
	t.Cleanup(s3.Close)
	base := startPage(t, maildir, s3.URL)

	t.Run("visitor is escaped", func(t *testing.T) {
		status, body := ask(t, http.MethodGet, base+"/", nil, "X-Lodge-User", "<script>ana")
		if status != http.StatusOK || !strings.Contains(body, "&lt;script&gt;ana") || strings.Contains(body, "<script>ana") {
			t.Errorf("status %d, page:\n%s", status, body)
		}
	})
	t.Run("mail and files show live", func(t *testing.T) {
		states := listen(t, base)
		if first := <-states; len(first.Mails) != 0 || len(first.Files) != 0 || first.Problem != "" {
			t.Fatalf("at first: %+v", first)
		}
		drop(t, maildir, "1", "From: Ana <ana@example.org>\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?= <b>\r\n\r\nhello  there\r\n")
		drop(t, maildir, "2", "Subject: \xff\xfe\r\nContent-Type: multipart/mixed; boundary=\r\n\r\n\x00")
		status, body := ask(t, http.MethodPut, base+"/files/a%20b%26%3Cc%3E.txt", strings.NewReader("content"))
		if status != http.StatusCreated {
			t.Fatalf("upload: %d %s", status, body)
		}
		seen := until(t, states, func(s state) bool { return len(s.Mails) == 2 && len(s.Files) == 1 })
		for _, m := range seen.Mails {
			if m.ID == "1" && (m.Subject != "grüße <b>" || m.Text != "hello there" || m.From != "Ana <ana@example.org>") {
				t.Errorf("mail 1 shows as %+v", m)
			}
		}
		if f := seen.Files[0]; f.Name != "a b&<c>.txt" || f.Bytes != 7 {
			t.Errorf("file shows as %+v", f)
		}
	})
	t.Run("download", func(t *testing.T) {
		if status, body := ask(t, http.MethodGet, base+"/files/a%20b%26%3Cc%3E.txt", nil); status != http.StatusOK || body != "content" {
			t.Errorf("got %d %q", status, body)
		}
		if status, _ := ask(t, http.MethodGet, base+"/files/none", nil); status != http.StatusNotFound {
			t.Errorf("a missing file gives %d", status)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for path, want := range map[string]int{
			"/files/": http.StatusBadRequest, "/files/a%2fb": http.StatusBadRequest, "/files/a%0ab": http.StatusBadRequest,
			"/files/" + strings.Repeat("x", 300): http.StatusBadRequest, "/else": http.StatusBadRequest,
		} {
			if status, _ := ask(t, http.MethodPut, base+path, strings.NewReader("x")); status != want {
				t.Errorf("PUT %s gives %d", path, status)
			}
		}
		if status, body := ask(t, http.MethodPut, base+"/files/big", &large{left: 64<<20 + 1}); status != http.StatusRequestEntityTooLarge {
			t.Errorf("a large upload gives %d %s", status, body)
		}
		if status, _ := ask(t, http.MethodGet, base+"/none", nil); status != http.StatusNotFound {
			t.Errorf("an unknown page gives %d", status)
		}
	})
	t.Run("S3 broken", func(t *testing.T) {
		bucket.fail(true)
		if status, body := ask(t, http.MethodPut, base+"/files/x", strings.NewReader("x")); status != http.StatusBadGateway || !strings.Contains(body, "507") {
			t.Errorf("got %d %q", status, body)
		}
		until(t, listen(t, base), func(s state) bool { return strings.Contains(s.Problem, "507") && len(s.Mails) == 2 })
	})
}

type state struct {
	Mails []struct{ ID, From, Subject, Text string }
	Files []struct {
		Name  string
		Bytes int64
	}
	Problem string
}

// startPage runs page.py until the test ends and returns its URL.
func startPage(t *testing.T, maildir, s3 string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil { // page.py listens there next
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "page.py")
	cmd.Env = append(os.Environ(), "PORT="+port, "MAILDIR="+maildir, "AWS_ENDPOINT_URL_S3="+s3)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has killed it
	base := "http://127.0.0.1:" + port
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close() // only the accept counts
			return base
		}
		select {
		case <-ctx.Done():
			t.Fatal("page.py does not listen")
		case <-tick.C:
		}
	}
}

func ask(t *testing.T, method, url string, body io.Reader, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := body.(*large); ok {
		req.ContentLength = l.left
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// listen follows /events.
func listen(t *testing.T, base string) <-chan state {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	states := make(chan state)
	go func() {
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var s state
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(text), &s) == nil {
				select {
				case states <- s:
				case <-t.Context().Done():
					return
				}
			}
		}
	}()
	return states
}

func until(t *testing.T, states <-chan state, ok func(state) bool) state {
	t.Helper()
	var last state
	for timeout := time.After(20 * time.Second); ; {
		select {
		case last = <-states:
			if ok(last) {
				return last
			}
		case <-timeout:
			t.Fatalf("the state never came; last: %+v", last)
		}
	}
}

func drop(t *testing.T, maildir, id, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(maildir, "new", id), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// large is a body of left zeros.
type large struct{ left int64 }

func (l *large) Read(p []byte) (int, error) {
	n := min(int64(len(p)), l.left)
	if l.left -= n; n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

// bucket is as much of S3 as the page uses: list, GET and PUT in one bucket that the first PUT
// makes.
type bucket struct {
	mu    sync.Mutex
	files map[string][]byte
	full  bool
}

func (b *bucket) fail(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, found := strings.CutPrefix(r.URL.Path, "/hello/")
	data, known := b.files[name]
	switch {
	case b.full:
		w.WriteHeader(http.StatusInsufficientStorage)
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="):
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodPut && found:
		b.files[name], _ = io.ReadAll(r.Body) // a broken upload is shorter, which the test sees
	case r.Method == http.MethodGet && known:
		_, _ = w.Write(data) // an error means that the client has gone
	case r.Method == http.MethodGet && r.URL.Path == "/hello" && len(b.files) > 0:
		fmt.Fprint(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
		for name, data := range b.files {
			name = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(name)
			fmt.Fprintf(w, "<Contents><Key>%s</Key><Size>%d</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>", name, len(data))
		}
		fmt.Fprint(w, "</ListBucketResult>")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
