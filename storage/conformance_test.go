package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

var (
	conformance = flag.Bool("conformance", false, "run the functional tests of minio-go against a server of this package")
	versitygw   = flag.String("versitygw", "", "run the full-flow tests of this program, versitygw, against a server of this package")
)

// listenTLS is listen with a certificate that no client trusts.
func (h *host) listenTLS(vm gateway.Identity) string {
	srv := httptest.NewUnstartedServer(h.Handler())
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return gateway.WithVM(ctx, vm) }
	srv.StartTLS()
	h.t.Cleanup(srv.Close)
	return srv.URL
}

// suite is a command with its own directory and little of this process's environment.
func suite(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH")}
	return cmd
}

// minioTests builds the functional tests that minio-go has in its module. Their build constraint is
// that of two packages in one directory.
func minioTests(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/minio/minio-go/v7").Output()
	gatewaytest.Must(t, err)
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "functional_tests.go"))
	gatewaytest.Must(t, err)
	program := filepath.Join(t.TempDir(), "main")
	gatewaytest.Must(t, os.WriteFile(program+".go", bytes.Replace(text, []byte("//go:build mint\n"), nil, 1), 0o600))
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, program+".go").CombinedOutput(); err != nil {
		t.Fatalf("%s%v", text, err)
	}
	return program
}

// minioPasses is how many of minio-go's tests must pass (7.4.1): 80 did when it was set.
const minioPasses = 78

// TestMinioGo runs minio-go's own functional tests over TLS. Those of signature version 2 fail.
func TestMinioGo(t *testing.T) {
	if !*conformance {
		t.Skip("needs -conformance")
	}
	h := newHost(t)
	g := h.guest("blog")
	keys := g.minted()
	cmd := suite(t, minioTests(t))
	cmd.Env = append(cmd.Env, "SERVER_ENDPOINT="+strings.TrimPrefix(h.listenTLS(g.Identity), "https://"), "ENABLE_HTTPS=1", "SKIP_CERT_VALIDATION=1",
		"ACCESS_KEY="+keys.AccessKey, "SECRET_KEY="+keys.SecretKey, "MINT_MODE=full", "RUN_ON_FAIL=1")
	out, _ := cmd.CombinedOutput() // it fails for a single test
	verdicts, counts := map[string]string{}, map[string]int{}
	for line := range bytes.SplitSeq(out, []byte("\n")) {
		var res struct{ Name, Status, Error, Message string }
		if json.Unmarshal(line, &res) != nil || res.Status == "" {
			continue
		}
		if verdicts[res.Name] != "FAIL" { // some tests report each of their steps
			verdicts[res.Name] = res.Status
		}
		if res.Status != "PASS" {
			t.Logf("%s: %s: %.200s %.200s", res.Status, res.Name, res.Message, res.Error)
		}
	}
	for _, status := range verdicts {
		counts[status]++
	}
	t.Logf("minio-go: %v", counts)
	if counts["PASS"] < minioPasses {
		t.Errorf("minio-go: %d passed, want %d", counts["PASS"], minioPasses)
	}
}

// versitygwPasses is how many of versitygw's 765 tests must pass (1.8.0): 325 did when it was set, of those that failed 71
// make accounts by verbs of that server, and 113 compare the words of messages.
const versitygwPasses = 320

// TestVersitygw runs the tests that another S3 server has. Many compare the words of messages, or make
// accounts by verbs of that server.
func TestVersitygw(t *testing.T) {
	if *versitygw == "" {
		t.Skip("needs -versitygw")
	}
	program, err := filepath.Abs(*versitygw)
	gatewaytest.Must(t, err)
	g := newHost(t).guest("blog")
	keys := g.minted()
	cmd := suite(t, program, "test", "-a", keys.AccessKey, "-s", keys.SecretKey, "-e", g.url, "full-flow", "-vs")
	gatewaytest.Must(t, os.Symlink(program, filepath.Join(cmd.Dir, "versitygw")))
	out, _ := cmd.CombinedOutput() // it fails for a single test
	out = regexp.MustCompile(`\x1b\[\d*m`).ReplaceAll(out, nil)
	passed := 0
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(line, "PASS ") {
			passed++
		} else if !strings.HasPrefix(line, "RUN ") {
			t.Logf("%.300s", line)
		}
	}
	if t.Logf("versitygw: %d passed", passed); passed < versitygwPasses {
		t.Errorf("versitygw: %d passed, want %d", passed, versitygwPasses)
	}
}
