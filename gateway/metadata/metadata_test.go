package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/issuer"
	"lodge/gateway/store"
)

// host is a Server with two VMs, each behind a loopback listener of its own, as behind its own tap.
type host struct {
	*Server
	a, b gateway.VM
	log  strings.Builder
	addr map[gateway.ID]string
}

func newHost(tb testing.TB) *host {
	tb.Helper()
	db, err := store.Open(tb.Context(), filepath.Join(tb.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // the directory goes with it
	directory, err := gateway.OpenDirectory(tb.Context(), db)
	if err != nil {
		tb.Fatal(err)
	}
	h := &host{addr: map[gateway.ID]string{}}
	tokens, err := issuer.New(issuer.Config{URL: "https://lodge.localhost", Dir: tb.TempDir(), Host: "rack1", Logger: slog.New(slog.NewTextHandler(&h.log, nil))})
	if err != nil {
		tb.Fatal(err)
	}
	h.Server = New(Config{
		Issuer:    tokens,
		Directory: directory, Keyring: gateway.NewKeyring([32]byte{1}, directory), Domain: "lodge.localhost",
		URL: func(m gateway.VM, port uint16) string { return fmt.Sprintf("https://%d-%s", port, m.Name) },
		Mail: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s by %s\n", r.Method, gateway.VMFrom(r.Context()).Name)
		}),
		Checkpoints: func(vm gateway.Identity) Checkpoints { return ownCheckpoints{vm.Name, new([]string)} },
		Logger:      slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	h.a, h.b = h.add(tb, "alpha"), h.add(tb, "beta")
	return h
}

func (h *host) add(tb testing.TB, name string) gateway.VM {
	tb.Helper()
	m, err := h.Directory.Create(tb.Context(), gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Size: gateway.Size{Image: "debian-13", CPUs: 2, MemoryMiB: 1024, DiskGiB: 8},
		Desired: gateway.Running, Ready: true, Incarnation: 1, Shares: []gateway.Share{{Port: 8080, Visibility: gateway.Public}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// serve listens for both VMs on loopback.
func (h *host) serve(t *testing.T) {
	t.Helper()
	server := &http.Server{Handler: h.Handler(), ConnContext: gateway.ConnContext, ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { _ = server.Close() })
	for _, m := range []gateway.VM{h.a, h.b} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go server.Serve(gatewaytest.Listener(l, m.Identity))
		h.addr[m.ID] = l.Addr().String()
	}
}

// transport leads m's requests to its own listener, whatever their URL.
func (h *host) transport(m gateway.VM) http.RoundTripper {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", h.addr[m.ID])
	}}
}

// ask makes one request as m, without a network. Headers are "Name: value".
func (h *host) ask(m gateway.VM, method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(gateway.WithVM(context.Background(), m.Identity), method, "http://169.254.169.254/", nil)
	r.URL.Path = path
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, r)
	return w
}

func (h *host) tokenOf(m gateway.VM) string {
	return h.ask(m, "PUT", tokenPath, ttlHeader+": 60").Body.String()
}

func TestMetadata(t *testing.T) {
	h := newHost(t)
	token := tokenHeader + ": " + h.tokenOf(h.a)
	tests := map[string]string{
		"/latest":                                     "meta-data/",
		"/latest/":                                    "meta-data/",
		"/latest/meta-data":                           "hostname\niam/\ninstance-id\nlocal-hostname\nlocal-ipv4\nmac\nplacement/",
		"/latest/meta-data/":                          "hostname\niam/\ninstance-id\nlocal-hostname\nlocal-ipv4\nmac\nplacement/",
		"/latest/meta-data/instance-id":               h.a.ID.String(),
		"/latest/meta-data/hostname":                  "alpha.lodge.localhost",
		"/latest/meta-data/local-hostname":            "alpha.lodge.localhost",
		"/latest/meta-data/local-ipv4":                h.a.Addr.String(),
		"/latest/meta-data/mac":                       h.a.MAC().String(),
		"/latest/meta-data/placement/":                "availability-zone\nregion",
		"/latest/meta-data/placement/region":          "us-east-1",
		"/latest/meta-data/placement/region/":         "us-east-1",
		"/latest/meta-data/iam/":                      "security-credentials/",
		"/latest/meta-data/iam/security-credentials/": "lodge",
		"/latest/meta-data/iam/security-credentials":  "lodge",
	}
	for path, want := range tests {
		t.Run(path, func(t *testing.T) {
			w := h.ask(h.a, "GET", path, token)
			if w.Code != http.StatusOK || w.Body.String() != want {
				t.Errorf("%d %q, want %q", w.Code, w.Body, want)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	h := newHost(t)
	token := tokenHeader + ": " + h.tokenOf(h.a)
	tests := []struct {
		name, method, path string
		headers            []string
		status             int
	}{
		{"no token", "GET", "/latest/meta-data/instance-id", nil, 401},
		{"garbage token", "GET", "/latest/meta-data/instance-id", []string{tokenHeader + ": AAAA"}, 401},
		{"another VM's token", "GET", "/latest/meta-data/instance-id", []string{tokenHeader + ": " + h.tokenOf(h.b)}, 401},
		{"token by GET", "GET", tokenPath, []string{ttlHeader + ": 60"}, 405},
		{"token without a life", "PUT", tokenPath, nil, 400},
		{"token for 0 s", "PUT", tokenPath, []string{ttlHeader + ": 0"}, 400},
		{"token for 21601 s", "PUT", tokenPath, []string{ttlHeader + ": 21601"}, 400},
		{"token for ever", "PUT", tokenPath, []string{ttlHeader + ": 99999999999999999999"}, 400},
		{"token through a proxy", "PUT", tokenPath, []string{ttlHeader + ": 60", "X-Forwarded-For: 10.0.0.1"}, 403},
		{"Forwarded", "GET", "/latest/meta-data/", []string{token, "Forwarded: for=10.0.0.1"}, 403},
		{"Via", "GET", "/latest/meta-data/", []string{token, "Via: 1.1 squid"}, 403},
		{"X-Forwarded-Host", "GET", selfPath, []string{"Lodge-Request: 1", "X-Forwarded-Host: x"}, 403},
		{"rebound name", "GET", selfPath, []string{"Lodge-Request: 1", "Host: evil.example"}, 421},
		{"the VM's public name", "GET", selfPath, []string{"Lodge-Request: 1", "Host: alpha.lodge.localhost"}, 421},
		{"another port", "GET", "/", []string{"Host: 169.254.169.254:8080"}, 421},
		{"no host", "GET", "/", []string{"Host: "}, 421},
		{"self without the header", "GET", selfPath, nil, 403},
		{"self with another value", "GET", selfPath, []string{"Lodge-Request: 2"}, 403},
		{"post", "POST", selfPath, []string{"Lodge-Request: 1"}, 405},
		{"delete", "DELETE", "/latest/meta-data/", []string{token}, 405},
		{"user data", "GET", "/latest/user-data", []string{token}, 404},
		{"another role", "GET", "/latest/meta-data/iam/security-credentials/admin", []string{token}, 404},
		{"dots", "GET", "/latest/meta-data/../meta-data/instance-id", []string{token}, 404},
		{"OpenStack", "GET", "/openstack/latest/meta_data.json", nil, 404},
		{"GCE", "GET", "/computeMetadata/v1/", []string{"Metadata-Flavor: Google"}, 404},
		{"Azure", "GET", "/metadata/instance", []string{"Metadata: true"}, 404},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := h.ask(h.a, test.method, test.path, test.headers...)
			if w.Code != test.status || w.Body.Len() < 10 {
				t.Errorf("%d %q, want %d and a text", w.Code, w.Body, test.status)
			}
		})
	}
}

func TestOurNames(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"169.254.169.254", "169.254.169.254:80", "metadata.lodge.internal", "Gateway.Lodge.Internal.", "gateway.lodge.internal:80"} {
		if w := h.ask(h.a, "GET", "/", "Host: "+name); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), selfPath) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestOnlyLivingVMsAreAnswered(t *testing.T) {
	h := newHost(t)
	token := tokenHeader + ": " + h.tokenOf(h.a)
	if w := h.ask(gateway.VM{}, "GET", "/"); w.Code != http.StatusForbidden {
		t.Errorf("not from a tap: %d", w.Code)
	}
	_, err := h.Directory.Update(t.Context(), h.a.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Removed
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if w := h.ask(h.a, "GET", "/latest/meta-data/instance-id", token); w.Code != http.StatusForbidden {
		t.Errorf("being removed: %d", w.Code)
	}
	if err := h.Directory.Delete(t.Context(), h.b.ID); err != nil {
		t.Fatal(err)
	}
	if w := h.ask(h.b, "GET", "/"); w.Code != http.StatusForbidden {
		t.Errorf("gone: %d", w.Code)
	}
}

func TestTokensEnd(t *testing.T) {
	h := newHost(t)
	now := time.Unix(1e9, 0)
	h.now = func() time.Time { return now }
	token := tokenHeader + ": " + h.tokenOf(h.a)
	for after, want := range map[time.Duration]int{0: 200, 59 * time.Second: 200, 60 * time.Second: 401, time.Hour: 401} {
		now = time.Unix(1e9, 0).Add(after)
		if w := h.ask(h.a, "GET", "/latest/meta-data/instance-id", token); w.Code != want {
			t.Errorf("after %v: %d, want %d", after, w.Code, want)
		}
	}
}

func TestSelf(t *testing.T) {
	h := newHost(t)
	w := h.ask(h.a, "GET", selfPath, "Lodge-Request: 1")
	var self Self
	if err := json.Unmarshal(w.Body.Bytes(), &self); err != nil {
		t.Fatal(err)
	}
	want := Self{
		ID: h.a.ID, Name: "alpha", Address: h.a.Addr.String(), Size: gateway.Size{Image: "debian-13", CPUs: 2, MemoryMiB: 1024, DiskGiB: 8},
		URL: "https://0-alpha", MailDomain: "alpha.lodge.localhost", S3: SelfS3{"http://s3.lodge.internal", "us-east-1"},
		Shares: []SharedPorts{{8080, gateway.Public, "https://8080-alpha"}},
	}
	if diff := cmp.Diff(want, self); diff != "" {
		t.Error(diff)
	}
}

// minio-go looks for credentials as the AWS SDKs do. Each VM gets its own, over its own listener.
func TestSDKFindsCredentials(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	for _, m := range []gateway.VM{h.a, h.b} {
		iam := credentials.New(&credentials.IAM{
			Client: &http.Client{Transport: h.transport(m)}, Endpoint: "http://169.254.169.254",
		})
		keys, err := iam.GetWithContext(nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := h.Keyring.Check(keys.AccessKeyID, time.Now())
		if err != nil || key != (gateway.S3Key{VM: m.Identity, Secret: keys.SecretAccessKey}) || keys.SessionToken != "" {
			t.Errorf("%s got the keys of %q: %v", m.Name, key.VM.Name, err)
		}
		if time.Until(keys.Expiration) < gateway.CredentialLife-time.Minute {
			t.Errorf("they expire at %v", keys.Expiration)
		}
	}
}

func TestNoSecretsInTheLog(t *testing.T) {
	h := newHost(t)
	token := h.tokenOf(h.a)
	var keys struct{ SecretAccessKey string }
	answer := h.ask(h.a, "GET", "/latest/meta-data/iam/security-credentials/lodge", tokenHeader+": "+token)
	if err := json.Unmarshal(answer.Body.Bytes(), &keys); err != nil || keys.SecretAccessKey == "" {
		t.Fatalf("%v: %s", err, answer.Body)
	}
	log := h.log.String()
	if !strings.Contains(log, "vm=alpha") || strings.Contains(log, token) || strings.Contains(log, keys.SecretAccessKey) {
		t.Errorf("logged: %s", log)
	}
}

// The two commands that / shows work when pasted, with curl.
func TestCurl(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	page := h.ask(h.a, "GET", "/").Body.String()
	var script []string
	for line := range strings.SplitSeq(page, "\n") {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			script = append(script, strings.ReplaceAll(command, "curl ", "curl -sS --fail --noproxy '*' --connect-to ::"+h.addr[h.a.ID]+" "))
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", strings.Join(script, "\n")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"name":"alpha"`) || !strings.Contains(string(out), "POST by alpha\n") || !strings.Contains(string(out), "instance-id\n") {
		t.Errorf("%v: %s\n%s", err, strings.Join(script, "\n"), out)
	}
}

func TestHead(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://169.254.169.254/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.transport(h.b).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || len(body) > 0 {
		t.Errorf("%v %v %q", err, resp.Status, body)
	}
}

// The property: whatever one VM sends, it gets an answer below 500 without any data of the other
// VM, and credentials only for a token that it was given.
func FuzzRequests(f *testing.F) {
	h := newHost(f)
	f.Add("GET", "/latest/meta-data/iam/security-credentials/lodge", "169.254.169.254", tokenHeader, h.tokenOf(h.b))
	f.Add("PUT", "/latest/api/token", "metadata.lodge.internal:80", ttlHeader, "60")
	f.Add("PUT", "/lodge/v1/token", "169.254.169.254", "Lodge-Request", "1")
	f.Add("GET", "/lodge/v1/self", "[::ffff:169.254.169.254]:80", "Lodge-Request", "1")
	f.Add("HEAD", "//latest/./meta-data", "gateway.lodge.internal.", "X-Forwarded-For", "")
	valid := h.tokenOf(h.a)
	f.Fuzz(func(t *testing.T, method, path, hostname, header, value string) {
		h.log.Reset()
		if value == valid {
			return
		}
		r := httptest.NewRequestWithContext(gateway.WithVM(t.Context(), h.a.Identity), http.MethodGet, "http://x/", nil)
		r.Method, r.URL.Path, r.Host = method, path, hostname
		r.Header[header] = []string{value}
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, r)
		answer := w.Body.String()
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, answer)
		}
		if strings.Contains(answer, h.b.ID.String()) || strings.Contains(answer, "SecretAccessKey") {
			t.Errorf("answer: %s", answer)
		}
		if w.Code == http.StatusOK && !isOwnHost(hostname) {
			t.Errorf("answered to %q", hostname)
		}
	})
}
