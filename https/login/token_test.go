package login

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
)

func basic(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

func TestTokenIn(t *testing.T) {
	for line, want := range map[string]string{
		"Bearer lodge_abc":       "abc",
		"bearer  lodge_abc ":     "abc",
		"\tBEARER lodge_abc":     "abc",
		basic("x:lodge_abc"):     "abc",
		basic("lodge_abc:"):      "abc",
		basic("lodge_a:lodge_b"): "b",
		"basic " + strings.TrimRight(basic("xy:lodge_abc")[6:], "="): "abc",
		"Bearer abc":        "",
		"Bearer":            "",
		"":                  "",
		"lodge_abc":         "",
		"Token lodge_abc":   "",
		"Bearer Lodge_abc":  "",
		basic("ada:secret"): "",
		"Basic %%%":         "",
		basic(strings.Repeat("x", 5000) + ":lodge_abc"): "",
	} {
		if got, ok := tokenIn(line); got != want || ok != (want != "") {
			t.Errorf("%.60q: %q, %t; want %q", line, got, ok, want)
		}
	}
}

// FuzzStripTokens: whatever a client sends, no token of Lodge is left, and the app's own credentials are.
func FuzzStripTokens(f *testing.F) {
	for _, line := range []string{"Bearer lodge_abc", basic("x:lodge_abc"), basic("lodge_x:"), "bearer\tlodge_a", "Basic bG9kZ2Vf", "Digest username=lodge_", ""} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		own := "Bearer the-app's"
		h := http.Header{"Authorization": {line, own}}
		_, ours := tokenIn(line)
		StripTokens(h)
		kept := h["Authorization"]
		if _, left := bearer(h); left || len(kept) == 0 || kept[len(kept)-1] != own || ours != (len(kept) == 1) {
			t.Errorf("%q leaves %q", line, kept)
		}
	})
}

func TestSecretHash(t *testing.T) {
	secret := browser.NewSecret()
	if _, ok := browser.Hash(secret); !ok {
		t.Fatalf("%q is no secret", secret)
	}
	last := secret[:42] + map[bool]string{true: "B", false: "C"}[secret[42] != 'B'] // spare bits are set, or another secret
	for _, other := range []string{"", secret[:42], secret + "A", secret[:42] + "\n", secret[:42] + "=", secret[:42] + "+", secret[:42] + "B", last} {
		if _, ok := browser.Hash(other); ok && other[42]%4 != secret[42]%4 {
			t.Errorf("%q passes", other)
		}
	}
	if n := testing.AllocsPerRun(100, func() { browser.Hash(secret) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWrongSecretsAreCountedByAddress(t *testing.T) {
	var w wrong
	var peers [2]gateway.Peer
	peers[1].VM = gateway.ID{1}
	now := time.Now()
	told := 0
	for i := range 10_000 {
		over, first := w.count(peers[0], now)
		if over != (i >= maxWrong) {
			t.Fatalf("token %d is over: %t", i, over)
		}
		if first {
			told++
		}
	}
	if over, _ := w.count(peers[1], now); over || told != 1 {
		t.Errorf("another address is over: %t; told %d times", over, told)
	}
	if over, _ := w.count(peers[0], now.Add(wrongSpan)); over {
		t.Error("over for ever")
	}
	for i := range maxWrongBy + 10 {
		w.count(gateway.Peer{VM: gateway.ID{byte(i), byte(i >> 8), byte(i >> 16), 1}}, now)
	}
	if len(w.by) > maxWrongBy {
		t.Errorf("%d addresses are kept", len(w.by))
	}
}
