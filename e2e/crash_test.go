package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/smtp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
)

// traffic uses all three services at once and records what was accepted.
type traffic struct {
	end context.CancelFunc
	all sync.WaitGroup

	mu    sync.Mutex
	mails []string // subjects that got 250
	pages int
}

func (s *suite) startTraffic(t *testing.T, page string, c *http.Client) *traffic {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	f := &traffic{end: end}
	f.all.Go(func() {
		pace := time.NewTicker(200 * time.Millisecond) // a guest accepts some ten a second under TCG
		defer pace.Stop()
		for n := 1; ctx.Err() == nil; n++ {
			<-pace.C
			subject := fmt.Sprintf("flood %d", n)
			if mailOnce(subject, "flood@alpha."+s.h.Domain) == nil {
				f.mu.Lock()
				f.mails = append(f.mails, subject)
				f.mu.Unlock()
			}
		}
	})
	f.all.Go(func() {
		for ctx.Err() == nil {
			if fetch(ctx, c, page) == nil {
				f.mu.Lock()
				f.pages++
				f.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *traffic) stop() {
	f.end()
	f.all.Wait()
}

func (f *traffic) counts() (mails, pages int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mails), f.pages
}

// mailOnce sends one message, in clear text: smtp.SendMail would check the certificate against
// 127.0.0.1. It returns nil after a 250.
func mailOnce(subject, to string) error {
	c, err := smtp.Dial("127.0.0.1:25")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail("flood@example.org"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "Subject: "+subject+"\r\n\r\nx\r\n")
	return errors.Join(err, w.Close()) // Close reads the 250
}

func fetch(ctx context.Context, c *http.Client, page string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %w", resp.StatusCode, err)
	}
	return nil
}

// kills is how often lodged is killed under load.
const kills = 3

// daemonKilled: lodged is killed with kill -9 while web, mail and S3 are in use, and started again,
// several times. The VMs keep running, and no mail and no object that was accepted is lost.
func (s *suite) daemonKilled(t *testing.T) {
	alpha, beta := s.alpha.BootID(t), s.beta.BootID(t)
	page, c := s.alpha.Info(t).URL+"/", s.login(t, s.alpha)
	s.beta.PutFile(t, "/home/lodge/minioput", harness.Program(t, "lodge/e2e/minioput"), "755")
	s.beta.Run(t, "sudo systemd-run --quiet --unit=flood --uid=lodge /home/lodge/minioput flood flood /home/lodge/flood.log")
	stored := func() int {
		n, err := strconv.Atoi(s.beta.Run(t, "wc -l <~/flood.log"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	f := s.startTraffic(t, page, c)
	objects := 0
	for round := range kills {
		mails, pages := f.counts()
		harness.Eventually(t, "all three services are in use", 3*time.Minute, func() error {
			m, p := f.counts()
			if now := stored(); m < mails+10 || p < pages+3 || now < objects+5 {
				return fmt.Errorf("%d mails, %d pages, %d objects since the last time", m-mails, p-pages, now-objects)
			}
			return nil
		})
		objects = stored()
		s.daemon.Kill(t)
		begun := time.Now()
		s.daemon = s.h.StartDaemon(t)
		t.Logf("round %d: ready again %s after kill -9", round+1, time.Since(begun).Round(time.Millisecond))
	}
	harness.Eventually(t, "objects are stored again", 2*time.Minute, func() error {
		if now := stored(); now < objects+5 {
			return fmt.Errorf("%d since the last kill", now-objects)
		}
		return nil
	})
	f.stop()
	s.beta.Run(t, "sudo systemctl stop flood")
	if now := s.alpha.BootID(t); now != alpha {
		t.Error("alpha was rebooted")
	}
	if now := s.beta.BootID(t); now != beta {
		t.Error("beta was rebooted")
	}
	s.nothingIsLost(t, f, stored())
}

// nothingIsLost compares what was accepted with what is stored, on the host and in the guests.
func (s *suite) nothingIsLost(t *testing.T, f *traffic, objects int) {
	t.Helper()
	if got := s.beta.Run(t, fmt.Sprintf("~/minioput check flood %d", objects)); got != fmt.Sprintf("%d objects are complete", objects) {
		t.Error(got)
	}
	there := map[string]bool{}
	harness.Eventually(t, "all mail is in the guest", 5*time.Minute, func() error {
		waiting := 0
		for _, m := range harness.JSON[[]gateway.Message](t, s.h, "mail", "alpha", "--limit", "10000") {
			there[m.Subject] = true
			if !m.Delivered {
				waiting++
			}
		}
		if waiting > 0 {
			return fmt.Errorf("%d messages wait", waiting)
		}
		return nil
	})
	inGuest := s.alpha.Run(t, "find ~/Maildir/new ~/Maildir/cur -type f -exec cat {} + | grep -a '^Subject: flood' | tr -d '\\r'")
	copies := map[string]int{}
	for line := range strings.SplitSeq(inGuest, "\n") {
		copies[strings.TrimPrefix(line, "Subject: ")]++
	}
	mails, pages := f.counts()
	for _, subject := range f.mails {
		if !there[subject] || copies[subject] < 1 {
			t.Errorf("%q got 250 and is lost: on the host %v, %d copies in the guest", subject, there[subject], copies[subject])
		}
	}
	t.Logf("%d mails and %d objects were accepted over %d kills, all are there; %d pages were served", mails, objects, kills, pages)
}

// libvirtdKilled: without libvirtd the VMs and their services keep running, verbs that need it name
// the cause, and all works again after its restart.
func (s *suite) libvirtdKilled(t *testing.T) {
	alpha, beta := s.alpha.BootID(t), s.beta.BootID(t)
	s.libvirt.Kill()
	r := s.h.TryLodge(t, "new", "gamma")
	if r.Code == 0 || !strings.Contains(r.Stderr, "libvirt") || !strings.Contains(r.Stderr, "hint:") {
		t.Errorf("lodge new without libvirtd: %d\n%s", r.Code, r.Text())
	}
	if r := s.h.TryLodge(t, "show", "gamma"); r.Code == 0 {
		t.Errorf("gamma was left behind: %s", r.Text())
	}
	contains(t, "metadata without libvirtd", s.beta.Run(t, selfScript), `"beta"`)
	contains(t, "S3 without libvirtd", useKeys(t, s.beta, s.beta.Run(t, credentialsScript)), " 200")
	s.send(t, "person@example.org", "x@alpha."+s.h.Domain, "without libvirtd")
	s.delivered(t, s.alpha, "without libvirtd", time.Minute)
	if status, _ := get(t, s.login(t, s.alpha), s.alpha.Info(t).URL+"/"); status != http.StatusOK {
		t.Errorf("alpha's page without libvirtd: %d", status)
	}
	s.libvirt.Again(t)
	harness.Eventually(t, "lodged has found libvirtd again", 2*time.Minute, func() error {
		for _, vm := range []*harness.VM{s.alpha, s.beta} {
			if state := vm.Info(t).State; state != "running" {
				return fmt.Errorf("%s is %s", vm.Name, state)
			}
		}
		return nil
	})
	if s.alpha.BootID(t) != alpha || s.beta.BootID(t) != beta {
		t.Error("a VM was rebooted")
	}
}

// logHasNoSecrets: the log has no bodies, one-time links and keys, and no report of the race
// detector.
func (s *suite) logHasNoSecrets(t *testing.T) {
	link := harness.JSON[struct{ URL string }](t, s.h, "open", "alpha").URL
	_, token, _ := strings.Cut(link, "token=")
	s.send(t, "person@example.org", "x@alpha."+s.h.Domain, "subject-in-a-log", "--body", "body-in-a-log")
	keys := s.alpha.Run(t, credentialsScript)
	useKeys(t, s.alpha, keys)
	_, secret, _ := strings.Cut(keys, ":")
	press(t, s.client(), link)
	log := s.daemon.Log()
	if len(log) < 1000 || token == "" || secret == "" {
		t.Fatalf("positive control: the log has %d bytes, token %q, secret of %d bytes", len(log), token, len(secret))
	}
	for _, part := range []string{token, strings.TrimSpace(secret), "body-in-a-log", "secret of alpha", "DATA RACE", "panic"} {
		if at := strings.Index(log, part); at >= 0 {
			t.Errorf("the log has %q: …%s…", part, log[max(0, at-300):min(len(log), at+3000)])
		}
	}
}
