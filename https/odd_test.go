package https_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// odd is a request that servers could read in different ways.
type odd struct {
	name string
	// bytes are HTTP/1.1. HOST stands for the usual fields, KEEP for these without "Connection:
	// close", and COOKIE for the field that has the owner's session.
	bytes string
	// want has the statuses of the answers of lodged, net/http and nginx, each as in "400 200,200 none".
	want string
	cut  bool // the client closes its side after the last byte
}

// oddRoads are the ways to an app, by a field that makes a request take it.
var oddRoads = map[string]string{"exchange": "", "ReverseProxy": "Upgrade: odd\r\n"}

// oddSite is a site whose VM blog is a recorder.
type oddSite struct {
	*site
	guest  *recorder
	cookie string // of the owner
	std    string // address of a server that is net/http alone
	nginx  string // address of nginx, if it runs
}

func newOddSite(t *testing.T) *oddSite {
	t.Helper()
	s := &oddSite{site: newSite(t), guest: newRecorder(t)}
	blog := s.vm("blog", public(0)...)
	s.backend(blog, 80, s.guest.addr)
	c := s.client()
	s.login(c, blog)
	for _, cookie := range c.Jar.Cookies(mustParse(t, s.url("blog")+"/")) {
		s.cookie = "Cookie: " + cookie.Name + "=" + cookie.Value
	}
	std := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	std.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	std.EnableHTTP2 = true
	std.StartTLS()
	t.Cleanup(std.Close)
	s.std = std.Listener.Addr().String()
	return s
}

// fill replaces HOST, KEEP and COOKIE.
func (s *oddSite) fill(request, road string) string {
	keep := "Host: blog.lodge.localhost\r\n" + s.cookie + "\r\n" + road
	return strings.NewReplacer("HOST\r\n", keep+"Connection: close\r\n", "KEEP\r\n", keep, "COOKIE", s.cookie).Replace(request)
}

// dialOdd connects to one of the servers.
func (s *oddSite) dialOdd(addr, proto string) *tls.Conn {
	s.tb.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: "blog.lodge.localhost", InsecureSkipVerify: true, NextProtos: []string{proto}}} //nolint:gosec // loopback
	c, err := d.DialContext(s.tb.Context(), "tcp", addr)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { c.Close() })
	return c.(*tls.Conn)
}

// send sends bytes and returns the statuses of the answers, "none" without one, and which requests
// the app answered, by their targets.
func (s *oddSite) send(addr, request string, cut bool, patience time.Duration) (statuses string, apps []string) {
	s.tb.Helper()
	c := s.dialOdd(addr, "http/1.1")
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go func() {
		io.WriteString(c, request) // it fails when the server has answered already
		if cut {
			c.CloseWrite()
		}
	}()
	answers := bufio.NewReader(c)
	var all []string
	for {
		res, err := http.ReadResponse(answers, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return strings.Join(append(all, "timeout"), ","), apps
		}
		if err != nil {
			break
		}
		if res.StatusCode == http.StatusContinue && len(all) > 0 && all[len(all)-1] == "100" {
			continue // of the app and of the gateway: RFC 9110 §15.2 allows several
		}
		all = append(all, strconv.Itoa(res.StatusCode))
		if app := res.Header.Get("App"); app != "" {
			apps = append(apps, app)
		}
	}
	if len(all) == 0 {
		return "none", apps
	}
	return strings.Join(all, ","), apps
}

// ordinary sends a request that nothing is odd about, and wants the app's answer to it.
func (s *oddSite) ordinary(t *testing.T, road, path string) {
	t.Helper()
	got, apps := s.send(s.addr, s.fill("GET "+path+" HTTP/1.1\r\nHOST\r\n\r\n", road), false, 10*time.Second)
	if got != "200" || len(apps) != 1 || apps[0] != path {
		t.Errorf("an ordinary request to %s: %s, answered as %q", path, got, apps)
	}
}

// TestOddRequests sends each odd request to a guest that records what arrives. Either the gateway
// refuses it, or the guest gets one well-formed request; and the connection to the guest, which an
// ordinary request used before it and another one uses after it, has nothing else.
func TestOddRequests(t *testing.T) {
	t.Parallel()
	s := newOddSite(t)
	if *oddRandom > 0 {
		s.nginx = startNginx(t, newRecorder(t).addr)
	}
	for name, road := range oddRoads {
		t.Run(name, func(t *testing.T) {
			for _, tt := range oddRequests() {
				s.checkOdd(t, tt, road)
			}
		})
	}
	s.checkEnd(t)
}

// checkEnd ends all connections, and checks what the guest saw on each from its beginning on.
func (s *oddSite) checkEnd(t *testing.T) {
	t.Helper()
	all := len(s.guest.since(0))
	if s.guest.reused() < all/2 {
		t.Errorf("%d of %d requests used a connection to the guest again: too few to prove anything", s.guest.reused(), all)
	}
	gatewaytest.Must(t, s.server.Shutdown(t.Context()))
	gatewaytest.Eventually(t, s.guest.malformed) // once the recorder has read all
	if late := s.guest.since(all); len(late) > 0 {
		t.Errorf("the guest got requests late: %q", late)
	}
}

func (s *oddSite) checkOdd(t *testing.T, tt odd, road string) {
	t.Helper()
	s.checkBoth(t, tt, road, func(addr string) (string, []string) {
		statuses, apps := s.send(addr, s.fill(tt.bytes, road), tt.cut, 10*time.Second)
		if tt.cut && statuses == "502" && addr == s.addr {
			statuses = "400" // the gateway may notice the end of the connection before that of the body
		}
		return statuses, apps
	})
}

// checkBoth checks an odd request, which send sends, and the ordinary ones before and after it.
func (s *oddSite) checkBoth(t *testing.T, tt odd, road string, send func(addr string) (statuses string, apps []string)) {
	t.Helper()
	before := len(s.guest.since(0))
	s.ordinary(t, road, "/before")
	got, apps := send(s.addr)
	s.ordinary(t, road, "/after")
	saw := s.guest.since(before)
	if len(saw) < 2 || saw[0].target != "/before" || saw[len(saw)-1].target != "/after" {
		t.Fatalf("%s: the guest saw %q", tt.name, saw)
	}
	s.checkSaw(t, tt.name, got, saw[1:len(saw)-1], apps)
	want := strings.Fields(tt.want + " - - -")
	std, _ := send(s.std)
	nginx := want[2]
	if s.nginx != "" {
		nginx, _ = send(s.nginx)
	}
	if want[0] == "-" { // what comes first decides
		got, std = "-", "-"
	}
	if got != want[0] || std != want[1] || passes(nginx) != passes(want[2]) {
		t.Errorf("%s: lodged, net/http and nginx answer %q, %q, %q; want %s", tt.name, got, std, nginx, tt.want)
	}
	if passes(got) == 0 && !refused(got) && got != "-" {
		t.Errorf("%s: %s is neither the app's answer nor a refusal", tt.name, got)
	}
	if passes(got) > max(passes(std), passes(nginx)) {
		t.Errorf("%s: lodged is laxer (%s) than both net/http (%s) and nginx (%s)", tt.name, got, std, nginx)
	}
}

// checkSaw checks what the guest saw of an odd request, by the answers that the client got. A stream
// of HTTP/2 can be reset after its header was passed on.
func (s *oddSite) checkSaw(t *testing.T, name, answer string, saw []strictRequest, apps []string) {
	t.Helper()
	var targets []string
	for _, r := range saw {
		targets = append(targets, r.target)
		if err := r.wellFormed([]string{owner}); err != nil {
			t.Errorf("%s: %v in %q", name, err, r)
		}
	}
	if fmt.Sprint(targets) != fmt.Sprint(apps) && (answer != "reset" || len(targets) > 1) {
		t.Errorf("%s: the guest saw %q, the client got answers to %q", name, targets, apps)
	}
}

// passes returns how many answers are the app's.
func passes(statuses string) int { return strings.Count(statuses, "200") }

// refused reports whether the last answer is a refusal: a fault of the client, or what HTTP/1.1 has
// and this server has not.
func refused(statuses string) bool {
	last := statuses[strings.LastIndex(statuses, ",")+1:]
	return strings.HasPrefix(last, "4") || last == "501" || last == "505" || last == "none" || last == "reset"
}

const oddNginx = `
user root; worker_processes 1; daemon off; pid DIR/pid; error_log DIR/log;
events { worker_connections 512; }
http {
	access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	server {
		listen ADDR ssl http2; ssl_certificate DIR/pem; ssl_certificate_key DIR/pem;
		location / { proxy_pass http://APP; proxy_http_version 1.1; proxy_set_header Connection ""; }
	}
}
`

// startNginx runs nginx in front of an app, and returns its address.
func startNginx(t *testing.T, app string) string {
	t.Helper()
	l := listen(t)
	addr, dir := l.Addr().String(), t.TempDir()
	l.Close()
	config := strings.NewReplacer("DIR", dir, "ADDR", addr, "APP", app).Replace(oddNginx)
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o600))
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "pem"), selfSigned(t), 0o600))
	nginx := exec.Command("nginx", "-c", filepath.Join(dir, "conf"), "-e", filepath.Join(dir, "log")) //nolint:noctx // killed below
	gatewaytest.Must(t, nginx.Start())
	t.Cleanup(func() {
		nginx.Process.Signal(syscall.SIGTERM)
		nginx.Wait()
	})
	gatewaytest.WaitFor(t, "nginx", func() bool {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// selfSigned returns a certificate with its key.
func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	gatewaytest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	gatewaytest.Must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	gatewaytest.Must(t, err)
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
}
