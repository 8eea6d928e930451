package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fixedRate  = 2000 // requests per second
	keepAlives = 16   // connections of a load
)

// cpuPer10k measures the CPU time of p during load, which returns its number of requests.
func cpuPer10k(p *peer, load func() (requests int, err error)) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	n, err := load()
	if err != nil {
		return 0, err
	}
	after, err := p.cpu()
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%d requests: %w", n, err)
	}
	return (after - before).Seconds() / float64(n) * 10_000, nil
}

// wrk loads with HTTP/1.1.
func wrk(path string, each time.Duration) func(context.Context, *bench, *peer) (float64, error) {
	served := regexp.MustCompile(`(\d+) requests in`)
	return func(ctx context.Context, b *bench, p *peer) (float64, error) {
		return cpuPer10k(p, func() (int, error) {
			// wrk has no option for the address: its own mount namespace has the name in /etc/hosts
			out, err := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec wrk "$@"`,
				filepath.Join(b.dir, "hosts"), "-t1", "-c"+strconv.Itoa(keepAlives), "-d"+seconds(each), "-H", "Cookie: "+b.cookie, p.url(path)).CombinedOutput()
			m := served.FindSubmatch(out)
			if err != nil || m == nil || bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
				return 0, fmt.Errorf("wrk: %w: %s", err, out)
			}
			return strconv.Atoi(string(m[1]))
		})
	}
}

// seconds rounds up: wrk takes whole ones.
func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }

// h2load loads with HTTP/2.
func h2load(path string, each time.Duration) func(context.Context, *bench, *peer) (float64, error) {
	return func(ctx context.Context, b *bench, p *peer) (float64, error) {
		return cpuPer10k(p, func() (int, error) {
			return runH2load(ctx, b, p, path, "-c4", "-m16", "-D", seconds(each))
		})
	}
}

func runH2load(ctx context.Context, b *bench, p *peer, path string, args ...string) (int, error) {
	done := regexp.MustCompile(`status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx`)
	args = append(args, "--connect-to", p.addr(), "-H", "cookie: "+b.cookie, p.url(path))
	out, err := exec.CommandContext(ctx, "h2load", args...).CombinedOutput()
	m := done.FindSubmatch(out)
	if err != nil || m == nil {
		return 0, fmt.Errorf("h2load: %w: %s", err, out)
	}
	return strconv.Atoi(string(m[1]))
}

// latency measures the 99th percentile at a fixed rate, over HTTP/1.1.
func latency(each time.Duration) func(context.Context, *bench, *peer) (float64, error) {
	return func(ctx context.Context, b *bench, p *peer) (float64, error) {
		log := filepath.Join(b.dir, "latency")
		defer os.Remove(log) //nolint:errcheck // the whole directory is removed at the end
		_, err := runH2load(ctx, b, p, "/1k", "--h1", "-c"+strconv.Itoa(keepAlives), "--rps", strconv.Itoa(fixedRate/keepAlives),
			"-D", seconds(2*each), "--log-file", log)
		if err != nil {
			return 0, err
		}
		lines, err := os.ReadFile(log)
		if err != nil {
			return 0, err
		}
		var micros []float64
		for line := range strings.Lines(string(lines)) {
			fields := strings.Fields(line) // start, status, microseconds
			if len(fields) != 3 {
				return 0, fmt.Errorf("h2load logged %q", line)
			}
			us, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				return 0, err
			}
			micros = append(micros, us)
		}
		slices.Sort(micros)
		return micros[len(micros)*99/100] / 1000, nil
	}
}

// handshakes measures new connections with a full handshake and one request each.
func handshakes(each time.Duration) func(context.Context, *bench, *peer) (float64, error) {
	return func(ctx context.Context, b *bench, p *peer) (float64, error) {
		return cpuPer10k(p, func() (int, error) {
			ctx, cancel := context.WithTimeout(ctx, each)
			defer cancel()
			var done atomic.Int64
			var workers sync.WaitGroup
			failed := make(chan error, 4)
			for range cap(failed) {
				workers.Go(func() {
					for ctx.Err() == nil {
						c, err := b.open(context.WithoutCancel(ctx), p, "http/1.1")
						if err != nil {
							failed <- err
							return
						}
						_ = c.Close() // it was answered
						done.Add(1)
					}
				})
			}
			workers.Wait()
			select {
			case err := <-failed:
				return 0, err
			default:
				return int(done.Load()), nil
			}
		})
	}
}

// idle measures the memory that open connections take in a new process, after one request each.
func idle(proto string, conns int) func(context.Context, *bench, *peer) (float64, error) {
	return func(ctx context.Context, b *bench, p *peer) (float64, error) {
		if err := b.restart(ctx, p); err != nil {
			return 0, err
		}
		warm, err := b.open(ctx, p, proto)
		if err != nil {
			return 0, err
		}
		_ = warm.Close() // what the first request makes is not of the connections
		before, err := p.memory()
		if err != nil {
			return 0, err
		}
		for range conns {
			c, err := b.open(ctx, p, proto)
			if err != nil {
				return 0, err
			}
			defer c.Close() //nolint:errcheck // the measurement is over
		}
		select { // the server's own time to give memory back
		case <-time.After(settle):
		case <-ctx.Done():
		}
		after, err := p.memory()
		return max(0, after-before) * 1000 / float64(conns), err
	}
}

// settle is how long connections are idle before their memory is measured.
const settle = 5 * time.Second

// open makes a connection with one request. The key exchange is one that all peers have: OpenSSL 3.0
// has no ML-KEM.
func (b *bench) open(ctx context.Context, p *peer, proto string) (net.Conn, error) {
	d := tls.Dialer{Config: &tls.Config{
		ServerName: host, InsecureSkipVerify: true, //nolint:gosec // each peer has another authority
		NextProtos: []string{proto}, CurvePreferences: []tls.CurveID{tls.X25519},
	}}
	c, err := d.DialContext(ctx, "tcp", p.addr())
	if err != nil {
		return nil, err
	}
	if err := b.ask(ctx, c.(*tls.Conn), p, proto); err != nil {
		return nil, fmt.Errorf("request over %s: %w", proto, err)
	}
	return c, nil
}

func (b *bench) ask(ctx context.Context, c *tls.Conn, p *peer, proto string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/1k"), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Cookie", b.cookie)
	var res *http.Response
	if proto == "h2" {
		one := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }, Protocols: new(http.Protocols)}
		one.Protocols.SetHTTP2(true)
		res, err = one.RoundTrip(r)
	} else if err = r.Write(c); err == nil {
		res, err = http.ReadResponse(bufio.NewReader(c), r)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || res.StatusCode != http.StatusOK || n != smallBytes {
		return fmt.Errorf("%s, %d bytes: %w", res.Status, n, err)
	}
	return nil
}
