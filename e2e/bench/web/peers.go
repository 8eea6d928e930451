package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	host       = "app.bench.localhost"
	smallBytes = 1 << 10
	largeBytes = 1 << 20
)

// bench has the running peers.
type bench struct {
	dir     string
	caddy   string // program
	app     int    // port of the app behind all
	cookie  string // of a session at lodged; sent to all, so that all get equal requests
	peers   []*peer
	missing []string
	running []*peer
}

// peer is one TLS server.
type peer struct {
	name    string
	port    int
	program string
	args    []string
	cmd     *exec.Cmd
}

func (p *peer) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

func (p *peer) url(path string) string { return fmt.Sprintf("https://%s:%d%s", host, p.port, path) }

// start starts the app and every peer. Programs that are not installed are in b.missing, but those
// that the table cannot do without are an error.
func (b *bench) start(ctx context.Context) error {
	for program, from := range map[string]string{"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx", "unshare": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: apt-get install %s, or packaging/deps bench", program, from)
		}
	}
	if err := b.files(); err != nil {
		return err
	}
	var err error
	if b.app, err = freePort(); err != nil {
		return err
	}
	conf := b.write("app.conf", fmt.Sprintf(appConf, b.dir, b.app, strings.Repeat("x", smallBytes)))
	if _, err := b.launch(ctx, &peer{name: "app", port: b.app, program: "nginx", args: []string{"-c", conf}}); err != nil {
		return err
	}
	if err := b.addLodged(); err != nil {
		return err
	}
	if err := b.addOthers(); err != nil {
		return err
	}
	for _, p := range b.peers {
		if err := b.restart(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// addOthers adds those peers that are installed.
func (b *bench) addOthers() error {
	for _, add := range []struct{ name, program, conf, file, install string }{
		{"nginx", "nginx", nginxConf, "nginx.conf", "nginx"},
		{"haproxy", "haproxy", haproxyConf, "haproxy.cfg", "haproxy"},
		{"caddy", b.caddy, caddyConf, "Caddyfile", "go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9"},
	} {
		if _, err := exec.LookPath(add.program); err != nil {
			b.missing = append(b.missing, add.name+" is missing: "+add.install)
			continue
		}
		port, err := freePort()
		if err != nil {
			return err
		}
		conf := b.write(add.file, strings.NewReplacer("DIR", b.dir, "APP", strconv.Itoa(b.app), "PORT", strconv.Itoa(port)).Replace(add.conf))
		args := map[string][]string{
			"nginx": {"-c", conf}, "haproxy": {"-db", "-f", conf}, "caddy": {"run", "--adapter", "caddyfile", "--config", conf},
		}[add.name]
		b.peers = append(b.peers, &peer{name: add.name, port: port, program: add.program, args: args})
	}
	return nil
}

// addLodged adds this program's own https.Server.
func (b *bench) addLodged() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	b.peers = append(b.peers, &peer{name: "lodged", port: port, program: self, args: []string{"lodged", strconv.Itoa(port), strconv.Itoa(b.app)}})
	return nil
}

// restart starts a peer, or starts it anew. lodged prints a link, which gives a session's cookie.
func (b *bench) restart(ctx context.Context, p *peer) error {
	p.stop()
	out, err := b.launch(ctx, p)
	if err != nil || p.name != "lodged" {
		return err
	}
	link, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("lodged printed no login link: %w", err)
	}
	b.cookie, err = logIn(ctx, p, strings.TrimSpace(link))
	return err
}

// launch starts a server, waits until it accepts connections, and returns its standard output.
func (b *bench) launch(ctx context.Context, p *peer) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close() //nolint:errcheck // the program has its own copy
	log, err := os.Create(filepath.Join(b.dir, p.name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()                         //nolint:errcheck // as above
	cmd := exec.Command(p.program, p.args...) //nolint:noctx,gosec // stop ends it; the programs of the table
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "XDG_DATA_HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir)
	cmd.Stdout, cmd.Stderr = write, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.cmd = cmd
	b.running = append(b.running, p)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr())
		if err == nil {
			_ = c.Close() // only the connect matters
			return read, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name()) // more about the error below
			return nil, fmt.Errorf("%s does not listen: %w: %s", p.name, err, text)
		}
	}
}

// stop ends all that was started.
func (b *bench) stop() {
	for _, p := range b.running {
		p.stop()
	}
}

func (p *peer) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
	_ = p.cmd.Wait()                       // its status does not matter now
	p.cmd = nil
}

// files writes the certificate, the large file, and the hosts file of wrk's namespace.
func (b *bench) files() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	return errors.Join(
		os.WriteFile(filepath.Join(b.dir, "both.pem"), both, 0o600),
		os.WriteFile(filepath.Join(b.dir, "1m"), make([]byte, largeBytes), 0o600),
		os.WriteFile(filepath.Join(b.dir, "hosts"), []byte("127.0.0.1 localhost "+host+"\n"), 0o600),
	)
}

// write writes a configuration and returns its path. A missing file fails the program that reads it.
func (b *bench) write(name, text string) string {
	path := filepath.Join(b.dir, name)
	_ = os.WriteFile(path, []byte(text), 0o600) // as above
	return path
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it takes no time
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// logIn uses a login link, and returns the session's cookie.
func logIn(ctx context.Context, p *peer, link string) (string, error) {
	_, token, _ := strings.Cut(link, "token=")
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url("/.lodge/login"), strings.NewReader("token="+token))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := loginTransport(p).RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close() //nolint:errcheck // only the header matters
	for _, c := range res.Cookies() {
		return c.Name + "=" + c.Value, nil
	}
	return "", fmt.Errorf("the login was answered with %s", res.Status)
}
