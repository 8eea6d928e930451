package store

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// mailChildFile is the environment variable that makes TestMailChild write to that file for TestMailKill.
const mailChildFile = "LODGE_STORE_TEST_MAIL_FILE"

// numbered are settings that belong together: all parts have the number.
func numbered(n int) gateway.MailSettings {
	name := fmt.Sprintf("n%d", n)
	return gateway.MailSettings{
		Off: n%2 == 1, QuotaBytes: int64(n+1) << 20, Keep: time.Duration(n+1) * time.Hour, Wake: n%2 == 1,
		AllowFrom: []string{"@" + name + ".example"}, Aliases: []string{name, name + "@"},
		Addresses: []gateway.MailAddress{{Local: name, From: []string{name + "@shop.example"}, Label: name, Expires: time.Unix(int64(n), 0).UTC()}},
	}
}

// TestMailChild is no test: it changes settings until it is killed, and prints what was acknowledged.
func TestMailChild(t *testing.T) {
	path := os.Getenv(mailChildFile)
	if path == "" {
		t.Skip("runs only as a child of TestMailKill")
	}
	d, err := gateway.OpenDirectory(t.Context(), opened(t, path, "10.213.0.0/24"))
	gatewaytest.Must(t, err)
	blog, _ := d.ByName("blog")
	for n := int(blog.Mail.QuotaBytes>>20) - 1; ; {
		n++
		_, err := d.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Mail = numbered(n); return nil })
		gatewaytest.Must(t, err)
		fmt.Println("acknowledged", n)
	}
}

// A daemon that is killed in the middle of a change leaves the old settings or the new ones, never some of
// both; what was acknowledged is there; and the names of those that are not are free.
func TestMailKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := opened(t, path, "10.213.0.0/24")
	blog := named("blog")
	blog.Mail = numbered(0)
	_, err := s.Create(t.Context(), blog)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, s.Close())
	for range 8 {
		last := changeUntilKilled(t, path)
		s := opened(t, path, "10.213.0.0/24")
		d, err := gateway.OpenDirectory(t.Context(), s)
		gatewaytest.Must(t, err)
		blog, _ := d.ByName("blog")
		n := int(blog.Mail.QuotaBytes>>20) - 1
		if diff := cmp.Diff(numbered(n), blog.Mail); diff != "" || n < last || n > last+1 {
			t.Errorf("%d was acknowledged; the file has %d: %s", last, n, diff)
		}
		other := named("other")
		other.Mail.Aliases = append(numbered(n-1).Aliases, numbered(n+1).Aliases...)
		other, err = d.Create(t.Context(), other)
		if err != nil {
			t.Errorf("the aliases of other settings are not free: %v", err)
		}
		third := named("third")
		third.Mail.Aliases = numbered(n).Aliases
		if _, err := s.Create(t.Context(), third); gateway.KindOf(err) != gateway.KindTaken {
			t.Errorf("another VM gets the aliases: %v", err)
		}
		gatewaytest.Must(t, d.Delete(t.Context(), other.ID))
		gatewaytest.Must(t, s.Close())
	}
}

// changeUntilKilled runs TestMailChild for a moment and returns the last number that it acknowledged.
func changeUntilKilled(t *testing.T, path string) (last int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestMailChild$", "-test.v")
	cmd.Env = append(os.Environ(), mailChildFile+"="+path)
	out, err := cmd.StdoutPipe()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, cmd.Start())
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &last); err == nil && kill == nil {
			kill = time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // it was killed
	if kill == nil {
		t.Fatal("the child acknowledged nothing")
	}
	return last
}

// A record that is older than mail settings receives all mail, and its settings can be changed and reset.
func TestMailSettingsOfAnOldRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := opened(t, path, "10.213.0.0/24")
	blog, err := s.Create(t.Context(), named("blog"))
	gatewaytest.Must(t, err)
	var record string
	gatewaytest.Must(t, s.db.QueryRowContext(t.Context(), `SELECT definition FROM machines`).Scan(&record))
	var fields map[string]json.RawMessage
	gatewaytest.Must(t, json.Unmarshal([]byte(record), &fields))
	if _, ok := fields["mail"]; ok || strings.Contains(record, "allow_from") {
		t.Fatalf("not a record as it was before: %s", record)
	}
	for _, settings := range []gateway.MailSettings{{}, numbered(1), {}} {
		if all, err := s.VMs(t.Context()); err != nil || !cmp.Equal(all[0].Mail, blog.Mail) || all[0].Mail.Accepts("x", "eve@evil.example", time.Now()) == blog.Mail.Off {
			t.Errorf("want %+v: %+v, %v", blog.Mail, all[0].Mail, err)
		}
		blog.Mail = settings
		gatewaytest.Must(t, s.Save(t.Context(), blog))
		gatewaytest.Must(t, s.Close())
		s = opened(t, path, "10.213.0.0/24")
	}
}
