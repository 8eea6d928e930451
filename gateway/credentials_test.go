package gateway_test

import (
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func issue(t *testing.T, k *gateway.Keyring, id gateway.ID) gateway.Credentials {
	t.Helper()
	c, err := k.Issue(id, noon())
	fatal(t, err)
	return c
}

func TestCredentialsNameTheirVM(t *testing.T) {
	d, _ := openDirectory(t, "blog", "web")
	k := gateway.NewKeyring([32]byte{1}, d)
	for _, m := range d.All() {
		c := issue(t, k, m.ID)
		key, err := k.Check(c.AccessKey, noon())
		if key != (gateway.S3Key{VM: m.Identity, Secret: c.SecretKey}) || err != nil || !gateway.IsAccessKey(c.AccessKey) {
			t.Errorf("%s: %v, %v", m.Name, key.VM, err)
		}
		if want := noon().Add(gateway.CredentialLife); !c.Expires.Equal(want) {
			t.Errorf("expires %s, want %s", c.Expires, want)
		}
		if strings.Contains(c.AccessKey, c.SecretKey) || len(c.SecretKey) < 40 || len(c.AccessKey) > 128 {
			t.Errorf("access key %q, secret of %d bytes", c.AccessKey, len(c.SecretKey))
		}
	}
}

func TestCredentialsOfOthersDiffer(t *testing.T) {
	d, _ := openDirectory(t, "blog", "web")
	blog, _ := d.ByName("blog")
	web, _ := d.ByName("web")
	k, foreign := gateway.NewKeyring([32]byte{1}, d), gateway.NewKeyring([32]byte{2}, d)
	own := issue(t, k, blog.ID)
	if other := issue(t, k, web.ID); other.SecretKey == own.SecretKey || other.AccessKey == own.AccessKey {
		t.Error("two VMs have the same")
	}
	theirs := issue(t, foreign, blog.ID)
	if key, err := k.Check(theirs.AccessKey, noon()); err == nil && key.Secret == theirs.SecretKey {
		t.Error("a secret of another host is valid")
	}
	if later, err := k.Issue(blog.ID, noon().Add(time.Second)); err != nil || later.SecretKey == own.SecretKey {
		t.Errorf("the secret outlives its key: %v", err)
	}
}

func TestCredentialsEnd(t *testing.T) {
	d, _ := openDirectory(t, "blog")
	blog, _ := d.ByName("blog")
	k := gateway.NewKeyring([32]byte{1}, d)
	c := issue(t, k, blog.ID)
	last := noon().Add(gateway.CredentialLife)
	for at, good := range map[time.Time]bool{noon(): true, last.Add(-time.Second): true, last: false, last.Add(time.Hour): false} {
		if _, err := k.Check(c.AccessKey, at); (err == nil) != good {
			t.Errorf("at %s: %v", at, err)
		}
	}
	check := func(when string) {
		t.Helper()
		key, err := k.Check(c.AccessKey, noon())
		if gateway.KindOf(err) != gateway.KindDenied || key != (gateway.S3Key{}) {
			t.Errorf("%s: %v, %v", when, key.VM, err)
		}
	}
	_, err := d.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Incarnation++; return nil })
	fatal(t, err)
	check("after a restart")
	c = issue(t, k, blog.ID)
	_, err = d.Update(t.Context(), blog.ID, desire(gateway.Removed))
	fatal(t, err)
	check("while it is being removed")
	if _, err := k.Issue(blog.ID, noon()); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("issued for a VM that is being removed: %v", err)
	}
	fatal(t, d.Delete(t.Context(), blog.ID))
	check("after it is gone")
	create(t, d, "blog")
	check("when another has its name")
}

// Keys for outside outlive a start of the VM, and end with it, with their time and when they are revoked.
func TestKeysForOutside(t *testing.T) {
	d, _ := openDirectory(t, "blog", "web")
	blog, _ := d.ByName("blog")
	k := gateway.NewKeyring([32]byte{1}, d)
	issue := func() gateway.Credentials {
		t.Helper()
		c, err := k.IssueOutside(blog.ID, 7, time.Hour, noon())
		fatal(t, err)
		return c
	}
	c := issue()
	good := gateway.S3Key{VM: blog.Identity, Secret: c.SecretKey, Outside: true, By: 7}
	for after, want := range map[time.Duration]gateway.S3Key{0: good, time.Hour - time.Second: good, time.Hour: {}} {
		if key, err := k.Check(c.AccessKey, noon().Add(after)); key != want || (err == nil) != (want == good) {
			t.Errorf("after %s: %+v, %v", after, key, err)
		}
	}
	_, err := d.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Incarnation++; return nil })
	fatal(t, err)
	if key, err := k.Check(c.AccessKey, noon()); key != good {
		t.Errorf("after a restart: %v", err)
	}
	if !gateway.IsAccessKey(c.AccessKey) || len(c.AccessKey) > 128 {
		t.Errorf("access key %q", c.AccessKey)
	}
	_, err = d.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.S3.KeyEpoch++; return nil })
	fatal(t, err)
	if key, err := k.Check(c.AccessKey, noon()); gateway.KindOf(err) != gateway.KindDenied || key != (gateway.S3Key{}) {
		t.Errorf("revoked: %+v, %v", key, err)
	}
	c = issue()
	_, err = d.Update(t.Context(), blog.ID, desire(gateway.Removed))
	fatal(t, err)
	if key, err := k.Check(c.AccessKey, noon()); gateway.KindOf(err) != gateway.KindDenied || key != (gateway.S3Key{}) {
		t.Errorf("of a VM that is being removed: %+v, %v", key, err)
	}
	if _, err := k.IssueOutside(blog.ID, 7, time.Hour, noon()); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("issued for a VM that is being removed: %v", err)
	}
}

func TestTamperedKeys(t *testing.T) {
	d, _ := openDirectory(t, "blog", "web")
	blog, _ := d.ByName("blog")
	k := gateway.NewKeyring([32]byte{1}, d)
	c := issue(t, k, blog.ID)
	good := c.AccessKey
	for i := range good {
		for _, b := range []byte{'A', 'B', '7', '\n'} {
			bad := good[:i] + string(b) + good[i+1:]
			if key, err := k.Check(bad, noon()); bad != good && err == nil && key.Secret == c.SecretKey {
				t.Errorf("%q gives the secret of %q", bad, good)
			}
		}
	}
	for _, bad := range []string{
		"", "LODGE", "AKIAIOSFODNN7EXAMPLE", good[5:], good + "A", good[:len(good)-1], good + "=", good + "\n", "\n" + good,
		strings.ToLower(good), "LODGE" + good, good[:20] + "\r\n" + good[20:],
	} {
		if key, err := k.Check(bad, noon()); gateway.KindOf(err) != gateway.KindDenied || key.VM.Known() {
			t.Errorf("%q: %v, %v", bad, key.VM, err)
		}
	}
}

// A key that passes belongs to a VM that exists, and has one spelling: that of Issue.
func FuzzKeyringCheck(f *testing.F) {
	d := gatewaytest.NewDirectory(f, new(gatewaytest.Records))
	m, err := d.Create(f.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.ID{1, 2, 3}, Name: "blog"}})
	if err != nil {
		f.Fatal(err)
	}
	k := gateway.NewKeyring([32]byte{1}, d)
	c, err := k.Issue(m.ID, noon())
	if err != nil {
		f.Fatal(err)
	}
	out, err := k.IssueOutside(m.ID, 7, time.Hour, noon())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{c.AccessKey, out.AccessKey, "", "LODGE", "AKIAIOSFODNN7EXAMPLE", c.AccessKey + "\n", c.AccessKey[:43] + "B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, access string) {
		key, err := k.Check(access, noon())
		if err != nil {
			if key != (gateway.S3Key{}) {
				t.Fatalf("%q gives %v and an error", access, key.VM)
			}
			return
		}
		like := c
		if key.Outside {
			like = out
		}
		if key.VM != m.Identity || len(access) != len(like.AccessKey) || key.Outside != (key.By != 0 || len(access) > len(c.AccessKey)) || strings.Trim(access, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			t.Fatalf("%q passes as %+v", access, key)
		}
		if key.Secret == like.SecretKey && access != like.AccessKey {
			t.Fatalf("%q gives the secret of %q", access, like.AccessKey)
		}
	})
}
