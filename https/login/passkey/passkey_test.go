package passkey

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/store"
	"lodge/https/access"
	"lodge/https/login/browser"
)

// ann has one passkey, and is logged in.
var ann = access.Person{ID: 1, Address: "ann@example.org"}

// newHandler returns a Handler over a real store. Login is counted.
func newHandler(tb testing.TB) (h *Handler, logins *int) {
	tb.Helper()
	db, err := store.Open(tb.Context(), filepath.Join(tb.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(tb, err)
	tb.Cleanup(func() { db.Close() })
	logins = new(int)
	h, err = New(Config{
		Domain: "lodge.localhost", Origin: "https://lodge.localhost", Store: db.Passkeys(), Logger: slog.New(slog.DiscardHandler),
		Visitor: func(*http.Request) (access.Person, bool) { return ann, true },
		Fresh:   func(*http.Request) bool { return true },
		Current: func(_ context.Context, p access.Person) (access.Person, bool) { return p, true },
		Login:   func(http.ResponseWriter, *http.Request, access.Person) error { *logins++; return nil },
	})
	gatewaytest.Must(tb, err)
	record, err := encode(webauthn.Credential{ID: []byte("credential"), PublicKey: []byte("no key")})
	gatewaytest.Must(tb, err)
	gatewaytest.Must(tb, db.Passkeys().AddPasskey(tb.Context(), gateway.Passkey{ID: []byte("credential"), Person: ann.ID, Address: ann.Address, Name: "phone", Record: record}))
	return h, logins
}

func post(t *testing.T, handler http.HandlerFunc, body []byte, cookie string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://lodge.localhost"+Prefix, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: browser.BindingCookie, Value: cookie})
	}
	w := httptest.NewRecorder()
	handler(w, r)
	return w
}

// FuzzFinish: whatever a browser sends for a challenge of its own, nothing but a signature logs in or
// registers, and nothing panics.
func FuzzFinish(f *testing.F) {
	challenge := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	text := base64.RawURLEncoding.EncodeToString
	client := func(kind string) string {
		return text(fmt.Appendf(nil, `{"type":"webauthn.%s","challenge":%q,"origin":"https://lodge.localhost"}`, kind, challenge))
	}
	data := text(append(bytes.Repeat([]byte{1}, 32), 5, 0, 0, 0, 9))
	assertion := `{"id":"` + text([]byte("credential")) + `","rawId":"` + text([]byte("credential")) + `","type":"public-key","response":{"clientDataJSON":"` +
		client("get") + `","authenticatorData":"` + data + `","signature":"AA","userHandle":"` + text([]byte{0, 0, 0, 0, 0, 0, 0, 1}) + `"}}`
	f.Add([]byte(assertion))
	f.Add([]byte(`{"name":"x","credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"` + client("create") +
		`","attestationObject":"o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YVgl"}}}`))
	f.Add([]byte(`{"credential":null}`))
	h, logins := newHandler(f)
	secret := browser.NewSecret()
	r := httptest.NewRequestWithContext(f.Context(), http.MethodPost, "/", nil)
	r.AddCookie(&http.Cookie{Name: browser.BindingCookie, Value: secret})
	bound, _ := browser.Bound(r)
	f.Fuzz(func(t *testing.T, body []byte) {
		session := webauthn.SessionData{Challenge: challenge, UserVerification: protocol.VerificationRequired}
		for _, finish := range []http.HandlerFunc{h.FinishLogin, h.FinishRegistration} {
			gatewaytest.Must(t, h.pending.Add(challenge, gateway.Peer{}, ceremony{bound: bound, session: session}))
			if w := post(t, finish, body, secret); w.Code < 400 || w.Code >= 500 || *logins > 0 {
				t.Errorf("%d: %s", w.Code, w.Body)
			}
			h.pending.Take(challenge)
		}
		if keys, err := h.List(t.Context(), ann); err != nil || len(keys) != 1 {
			t.Errorf("%d passkeys, %v", len(keys), err)
		}
	})
}

func TestManage(t *testing.T) {
	h, _ := newHandler(t)
	all, err := h.List(t.Context(), ann)
	if err != nil || len(all) != 1 || all[0].Name != "phone" {
		t.Fatalf("%+v, %v", all, err)
	}
	id := all[0].ID
	bob := access.Person{ID: 2, Address: "bob@example.org"}
	for name, tt := range map[string]struct {
		err  error
		want gateway.Kind
	}{
		"another person renames": {h.Rename(t.Context(), bob, id, "x"), gateway.KindNotFound},
		"another person removes": {h.Remove(t.Context(), bob, id), gateway.KindNotFound},
		"no name":                {h.Rename(t.Context(), ann, id, " \t"), gateway.KindInvalid},
		"a long name":            {h.Rename(t.Context(), ann, id, strings.Repeat("m", 65)), gateway.KindInvalid},
		"a name with a newline":  {h.Rename(t.Context(), ann, id, "a\nb"), gateway.KindInvalid},
		"an ID that is none":     {h.Rename(t.Context(), ann, "?", "x"), gateway.KindNotFound},
	} {
		if gateway.KindOf(tt.err) != tt.want {
			t.Errorf("%s: %v", name, tt.err)
		}
	}
	gatewaytest.Must(t, h.Rename(t.Context(), ann, id, " Ännchens <b>phone</b> "))
	if all, err = h.List(t.Context(), ann); err != nil || all[0].Name != "Ännchens <b>phone</b>" {
		t.Errorf("%+v, %v", all, err)
	}
	gatewaytest.Must(t, h.Remove(t.Context(), ann, id))
	if all, err = h.List(t.Context(), ann); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// A person with 20 passkeys registers none more, and what is left to do is said before the device asks.
func TestTooManyPasskeys(t *testing.T) {
	h, _ := newHandler(t)
	for i := range gateway.MaxPasskeys - 1 {
		gatewaytest.Must(t, h.Store.AddPasskey(t.Context(), gateway.Passkey{ID: []byte{byte(i)}, Person: 1, Created: time.Now(), Record: []byte("{}")}))
	}
	if w := post(t, h.BeginRegistration, []byte("{}"), ""); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "Remove one") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}

// Strangers begin so many logins at one address, and no more; other addresses are not in their way.
func TestLoginsAreBegunWithinLimits(t *testing.T) {
	h, _ := newHandler(t)
	from := func(addr string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://lodge.localhost"+Prefix, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		h.BeginLogin(w, r)
		return w.Code
	}
	begun := 0
	for from("203.0.113.7:1") == http.StatusOK {
		if begun++; begun > 1000 {
			t.Fatal("no limit")
		}
	}
	if code := from("203.0.113.7:2"); code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", code)
	}
	if code := from("203.0.113.8:1"); code != http.StatusOK {
		t.Errorf("at another address: %d", code)
	}
}
