package mail

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway/people"
	"lodge/gateway/store"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/imapd"
)

// outside is a server for people, and VMs with passwords.
type outside struct {
	*fixture

	addr, root string // where it listens, and the file with its certificate
}

func (c *talk) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	gatewaytest.Must(c.t, err)
	return strings.TrimRight(line, "\r\n")
}

// ends reads until the server has closed the connection.
func (c *talk) ends() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.r); os.IsTimeout(err) {
		c.t.Error("the session goes on")
	}
}

func startOutside(t *testing.T) *outside {
	t.Helper()
	config, root := certificate(t, "blog."+domain, "localhost")
	o := &outside{root: root, fixture: start(t, t.TempDir(), func(c *Config) { c.TLS = config })}
	l := listen(t)
	o.addr = l.Addr().String()
	go o.ServeIMAPS(l) // ends at Shutdown; its error would show as a failing client
	return o
}

// password makes one for a VM.
func (o *outside) password(t *testing.T, vm gateway.Identity, label string) string {
	t.Helper()
	text := gateway.NewMailPassword()
	_, err := o.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error {
		m.Mail.Passwords = append(slices.Clone(m.Mail.Passwords), gateway.MailPassword{Label: label, Hash: gateway.HashMailPassword(text)})
		return nil
	})
	gatewaytest.Must(t, err)
	return text
}

func (o *outside) revoke(t *testing.T, vm gateway.Identity, label string) {
	t.Helper()
	_, err := o.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error {
		m.Mail.Passwords = slices.DeleteFunc(slices.Clone(m.Mail.Passwords), func(p gateway.MailPassword) bool { return p.Label == label })
		return nil
	})
	gatewaytest.Must(t, err)
}

// dial opens a connection and reads the greeting.
func (o *outside) dial(t *testing.T) *talk {
	t.Helper()
	pem, err := os.ReadFile(o.root)
	gatewaytest.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d := &tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "blog." + domain, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(t.Context(), "tcp", o.addr)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	gatewaytest.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	c := &talk{t, conn, bufio.NewReader(conn)}
	if line := c.line(); !strings.HasPrefix(line, "* OK [CAPABILITY ") || !strings.Contains(line, "AUTH=PLAIN AUTH=LOGIN") || strings.Contains(line, "STARTTLS") {
		t.Fatalf("greeting: %q", line)
	}
	return c
}

// try sends a login, and returns the line that ends it.
func (o *outside) try(c *talk, how, user, password string) string {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	switch how {
	case "LOGIN command":
		c.send(fmt.Sprintf("a LOGIN %q %q\r\n", user, password))
	case "PLAIN, initial response":
		c.send("a AUTHENTICATE PLAIN " + encode("\x00"+user+"\x00"+password) + "\r\n")
	case "PLAIN":
		c.send("a AUTHENTICATE PLAIN\r\n")
		c.line()
		c.send(encode("\x00"+user+"\x00"+password) + "\r\n")
	case "LOGIN":
		c.send("a AUTHENTICATE LOGIN\r\n")
		c.line()
		c.send(encode(user) + "\r\n")
		c.line()
		c.send(encode(password) + "\r\n")
	}
	for {
		if line := c.line(); !strings.HasPrefix(line, "* ") {
			return line
		}
	}
}

func TestIMAPLogin(t *testing.T) {
	o := startOutside(t)
	blog, other := o.add(t, "blog"), o.add(t, "other")
	o.sendRaw(t, blog, "Subject: one\r\n\r\n1\r\n")
	password, foreign := o.password(t, blog, "phone"), o.password(t, other, "phone")
	for _, how := range []string{"LOGIN command", "PLAIN, initial response", "PLAIN", "LOGIN"} {
		for _, user := range []string{"blog", "Blog", "blog." + domain, "anything@blog." + domain} {
			c := o.dial(t)
			if line := o.try(c, how, user, password); !strings.HasPrefix(line, "a OK") {
				t.Fatalf("%s as %s: %q", how, user, line)
			}
			c.send("b STATUS INBOX (MESSAGES)\r\n")
			if line := c.line(); !strings.Contains(line, "MESSAGES 1") {
				t.Errorf("%s as %s: %q", how, user, line)
			}
		}
	}
	var answers []string
	for _, wrong := range [][2]string{{"blog", foreign}, {"nobody", password}, {"", ""}, {"blog", ""}, {"blog." + domain + ".evil.example", password}} {
		c := o.dial(t)
		answers = append(answers, o.try(c, "LOGIN command", wrong[0], wrong[1]))
		c.send("b LIST \"\" *\r\n")
		if line := c.line(); strings.HasPrefix(line, "b OK") || strings.HasPrefix(line, "* LIST") {
			t.Errorf("%q: %q without a login", wrong, line)
		}
	}
	if answers[0] != "a NO [AUTHENTICATIONFAILED] Wrong user or password" || len(slices.Compact(answers)) != 1 {
		t.Errorf("wrong passwords are answered with %q", answers)
	}
	for _, secret := range []string{password, foreign, strings.ReplaceAll(password, "-", ""), base64.StdEncoding.EncodeToString([]byte("\x00blog\x00" + password))} {
		if strings.Contains(o.log.String(), secret) {
			t.Error("the log has a password")
		}
	}
}

// After some wrong passwords an address has to wait, with the right one too; others do not.
func TestIMAPLoginRates(t *testing.T) {
	o := startOutside(t)
	blog, other := o.add(t, "blog"), o.add(t, "other")
	password, otherPassword := o.password(t, blog, "phone"), o.password(t, other, "phone")
	c := o.dial(t)
	limited := false
	for range 10 {
		limited = limited || strings.HasPrefix(o.try(c, "LOGIN command", "blog", "wrong"), "a NO [LIMIT]")
	}
	if !limited || !strings.HasPrefix(o.try(c, "LOGIN command", "blog", password), "a NO [LIMIT]") {
		t.Error("there is no limit")
	}
	if line := o.try(o.dial(t), "LOGIN command", "other", otherPassword); !strings.HasPrefix(line, "a OK") {
		t.Errorf("another VM: %s", line)
	}
	for range 30 { // right ones cost nothing
		if line := o.try(o.dial(t), "LOGIN command", "other", otherPassword); !strings.HasPrefix(line, "a OK") {
			t.Fatal(line)
		}
	}
	for i := range 30 {
		limited = strings.HasPrefix(o.try(c, "LOGIN command", fmt.Sprint("vm", i), "wrong"), "a NO [LIMIT]")
	}
	if !limited {
		t.Error("there is no limit over all VMs")
	}
}

// A password that is revoked, and a VM that is removed, end what is open by them, also in IDLE; another
// password's sessions stay.
func TestIMAPRevoked(t *testing.T) {
	o := startOutside(t)
	blog, other := o.add(t, "blog"), o.add(t, "other")
	login := func(vm gateway.Identity, password string) *talk {
		c := o.dial(t)
		if line := o.try(c, "LOGIN command", vm.Name, password); !strings.HasPrefix(line, "a OK") {
			t.Fatal(line)
		}
		c.send("b SELECT INBOX\r\nc IDLE\r\n")
		for !strings.HasPrefix(c.line(), "+") {
		}
		return c
	}
	phone, laptop := o.password(t, blog, "phone"), o.password(t, blog, "laptop")
	onPhone, onLaptop, elsewhere := login(blog, phone), login(blog, laptop), login(other, o.password(t, other, "phone"))
	o.revoke(t, blog, "phone")
	onPhone.ends()
	if line := o.try(o.dial(t), "LOGIN command", "blog", phone); !strings.HasPrefix(line, "a NO [AUTHENTICATIONFAILED]") {
		t.Errorf("revoked: %s", line)
	}
	onLaptop.send("DONE\r\n")
	if line := onLaptop.line(); !strings.HasPrefix(line, "c OK") {
		t.Errorf("the other password's session: %s", line)
	}
	_, err := o.directory.Update(t.Context(), other.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Removed
		return nil
	})
	gatewaytest.Must(t, err)
	elsewhere.ends()
}

// A password opens the mail while the person who made it may manage the VM.
func TestIMAPPasswordsEndWithTheirMakersRights(t *testing.T) {
	config, root := certificate(t, "blog."+domain, "localhost")
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	book, err := people.Open(t.Context(), db.Shared(), "owner@example.com")
	gatewaytest.Must(t, err)
	ada, _, err := book.Add(t.Context(), "ada@example.com", people.Guest)
	gatewaytest.Must(t, err)
	o := &outside{root: root, fixture: start(t, t.TempDir(), func(c *Config) { c.TLS, c.People = config, book })}
	l := listen(t)
	o.addr = l.Addr().String()
	go o.ServeIMAPS(l) // ends at Shutdown; its error would show as a failing client
	blog, shop := o.add(t, "blog"), o.add(t, "shop")
	for _, vm := range []gateway.Identity{blog, shop} {
		o.grant(t, vm, gateway.Grant{To: ada.ID, Level: gateway.Manage})
	}
	login := func(vm gateway.Identity, by gateway.Principal) (*talk, string) {
		text := o.password(t, vm, fmt.Sprint(by, time.Now().UnixNano()))
		_, err := o.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error {
			m.Mail.Passwords = slices.Clone(m.Mail.Passwords)
			m.Mail.Passwords[len(m.Mail.Passwords)-1].By = by
			return nil
		})
		gatewaytest.Must(t, err)
		c := o.dial(t)
		return c, o.try(c, "LOGIN command", vm.Name, text)
	}
	opened := func(vm gateway.Identity, by gateway.Principal) *talk {
		c, line := login(vm, by)
		if !strings.HasPrefix(line, "a OK") {
			t.Fatalf("%s by %d: %s", vm.Name, by, line)
		}
		return c
	}
	if _, line := login(blog, 0); strings.HasPrefix(line, "a OK") {
		t.Error("a password of nobody opens the mail")
	}
	owners, atBlog, atShop := opened(blog, book.Owner().ID), opened(blog, ada.ID), opened(shop, ada.ID)
	o.grant(t, blog, gateway.Grant{To: ada.ID, Level: gateway.Use})
	atBlog.ends()
	if _, line := login(blog, ada.ID); strings.HasPrefix(line, "a OK") {
		t.Error("a password opens the mail without the right of its maker")
	}
	_, err = book.Remove(t.Context(), "ada@example.com")
	gatewaytest.Must(t, err)
	atShop.ends()
	owners.send("z NOOP\r\n")
	if line := owners.line(); !strings.HasPrefix(line, "z OK") {
		t.Errorf("the owner's session: %s", line)
	}
}

func (o *outside) grant(t *testing.T, vm gateway.Identity, g gateway.Grant) {
	t.Helper()
	_, err := o.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error {
		m.Grants = m.WithGrant(g.To, g.Level)
		return nil
	})
	gatewaytest.Must(t, err)
}

// Connections of one address have a limit, which those count for that send nothing, or no TLS.
func TestIMAPConnectionsHaveLimits(t *testing.T) {
	o := startOutside(t)
	limits := imapd.OutsideLimits()
	for i := range limits.PerPeer + 3 {
		c := dial(t, o.addr)
		if i < limits.PerPeer {
			continue
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("connection %d is served: %v", i, err)
		}
	}
}
