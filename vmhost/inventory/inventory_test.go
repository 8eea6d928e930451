package inventory_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"lodge/gateway"
	"lodge/vmhost/inventory"
)

// answer joins records as Script writes them.
func answer(records ...string) string {
	return "# lodge inventory 1\x00" + strings.Join(append(records, "# end"), "\x00") + "\x00"
}

// file is the two records of a file.
func file(path, kind, mode string, uid, bytes int, link string) string {
	return fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t1700000000.5\t%s\x00%s", kind, mode, uid, uid, bytes, path, link)
}

func read(tb testing.TB, text string) inventory.Inventory {
	tb.Helper()
	inv, err := inventory.Read(strings.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	return inv
}

// image is what a small image has.
func image(more ...string) string {
	return answer(append([]string{
		"# packages", "base-files\t13\tinstalled", "nano\t8.4\tinstalled", "gone\t1\tconfig-files", "# manual", "base-files", "nano",
		"# conffiles", "aaaa\t/etc/nanorc", "# owned", "/etc/nanorc",
		"# users", "root:0:0:root:/root:/bin/bash", "lodge:1000:1000:Lodge:/home/lodge:/bin/bash", "# groups", "root:0:", "sudo:27:lodge", "lodge:1000:",
		"# sums", "aaaa  /etc/nanorc", "bbbb  /etc/motd", "# files",
		file("/etc/skel", "d", "755", 0, 4096, ""), file("/etc/skel/.bashrc", "f", "644", 0, 7, ""), file("/etc/skel/.profile", "f", "644", 0, 7, ""),
		file("/etc", "d", "755", 0, 4096, ""), file("/etc/nanorc", "f", "644", 0, 10, ""), file("/etc/motd", "f", "644", 0, 20, ""),
		file("/etc/hostname", "f", "644", 0, 10, ""), file("/etc/systemd/system/multi-user.target.wants/cron.service", "l", "777", 0, 10, "/usr/lib/systemd/system/cron.service"),
	}, more...)...)
}

// built is the same after somebody has built a shop in it.
func built() string {
	return answer(
		"# packages", "base-files\t13.1\tinstalled", "nginx\t1.26\tinstalled", "nginx-common\t1.26\tinstalled", "# manual", "nginx", "base-files",
		"# conffiles", "cccc\t/etc/nginx/nginx.conf", "dddd\t/etc/nginx/mime.types", "# owned", "/etc/nginx", "/etc/nginx/nginx.conf", "/etc/nginx/mime.types", "/etc/nginx/empty", "/opt/vendor/program",
		"# users", "root:0:0:root:/root:/bin/bash", "lodge:1000:1000:Lodge:/home/lodge:/bin/bash", "shop:1001:1001:The shop:/srv/shop:/usr/sbin/nologin",
		"# groups", "root:0:", "sudo:27:lodge,shop", "lodge:1000:", "shop:1001:",
		"# ports", `tcp   LISTEN 0      511          0.0.0.0:80        0.0.0.0:*    users:(("nginx",pid=9,fd=5),("nginx",pid=8,fd=5))`,
		`udp   UNCONN 0      0      127.0.0.1%lo:323        0.0.0.0:*    users:(("chronyd",pid=1,fd=5))`, "nonsense",
		"# sums", "bbbc  /etc/motd", "cccd  /etc/nginx/nginx.conf", "dddd  /etc/nginx/mime.types", "# files",
		file("/etc", "d", "755", 0, 4096, ""), file("/etc/motd", "f", "600", 0, 20, ""), file("/etc/hostname", "f", "644", 0, 9, ""),
		file("/etc/nginx", "d", "755", 0, 4096, ""), file("/etc/nginx/nginx.conf", "f", "644", 0, 30, ""), file("/etc/nginx/mime.types", "f", "644", 0, 30, ""),
		file("/etc/nginx/empty", "d", "755", 0, 4096, ""), file("/etc/ld.so.cache", "f", "644", 0, 30, ""),
		file("/etc/systemd/system/multi-user.target.wants/nginx.service", "l", "777", 0, 10, "/usr/lib/systemd/system/nginx.service"),
		file("/etc/systemd/system/multi-user.target.wants/cron.service", "l", "777", 0, 10, "/usr/lib/systemd/system/cron.service"),
		file("/etc/systemd/system/apt-daily.timer", "l", "777", 0, 10, "/dev/null"),
		file("/opt/vendor", "d", "755", 0, 4096, ""), file("/opt/vendor/program", "f", "755", 0, 1<<20, ""),
		file("/srv/shop", "d", "2750", 1001, 4096, ""), file("/srv/shop/app.py", "f", "640", 1001, 40, ""), file("/srv/shop/big", "f", "640", 1001, 1<<20, ""),
		file("/srv/shop/current", "l", "777", 1001, 6, "app.py"), file("/srv/shop/odd\nname", "f", "640", 1001, 40, ""), file("/srv/shop/key.pem", "f", "640", 1001, 40, ""),
		file("/etc/skel", "d", "755", 0, 4096, ""), file("/etc/skel/.bashrc", "f", "644", 0, 7, ""), file("/etc/skel/.profile", "f", "644", 0, 7, ""),
		file("/home/shop", "d", "755", 1001, 4096, ""), file("/home/shop/.bashrc", "f", "644", 1001, 7, ""), file("/home/shop/.profile", "f", "644", 1001, 9, ""),
	)
}

func TestCompare(t *testing.T) {
	c := inventory.Compare(read(t, image()), read(t, built()), map[string]bool{"/etc/hostname": true})
	var got []string
	for _, p := range c.Packages {
		got = append(got, fmt.Sprintf("package %s %s %s %s %v", p.Change, p.Name, p.Was, p.Version, p.Manual))
	}
	for _, a := range c.Accounts {
		got = append(got, fmt.Sprintf("%s %s %s %d %s", a.Kind, a.Change, a.Name, a.ID, a.Rest))
	}
	for _, u := range c.Units {
		got = append(got, "unit "+u.Change+" "+u.Name)
	}
	for _, f := range c.Files {
		got = append(got, fmt.Sprintf("%s %s %q %s %s:%s %v %s", f.Type, f.Change, f.Path, f.Mode, f.Owner, f.Group, f.What, f.Link))
	}
	for _, p := range c.Ports {
		got = append(got, fmt.Sprintf("port %s %s %s", p.Protocol, p.Addr, p.Program))
	}
	want := []string{
		"package changed base-files 13 13.1 true", "package removed nano 8.4  true", "package added nginx  1.26 true", "package added nginx-common  1.26 false",
		"group added shop 1001 ", "group changed sudo 27 lodge,shop", "user added shop 1001 1001:The shop:/srv/shop:/usr/sbin/nologin",
		"unit masked apt-daily.timer", "unit enabled nginx.service",
		`file changed "/etc/motd" 0600 root:root [content mode] `, `file added "/etc/nginx/nginx.conf" 0644 root:root [] `,
		`directory added "/home/shop" 0755 shop:shop [] `, `file added "/home/shop/.profile" 0644 shop:shop [] `,
		`directory added "/srv/shop" 2750 shop:shop [] `, `file added "/srv/shop/app.py" 0640 shop:shop [] `, `file added "/srv/shop/big" 0640 shop:shop [] `,
		`link added "/srv/shop/current" 0777 shop:shop [] app.py`, `file added "/srv/shop/key.pem" 0640 shop:shop [] `, `file added "/srv/shop/odd\nname" 0640 shop:shop [] `,
		"port tcp 0.0.0.0:80 nginx", "port udp 127.0.0.1:323 chronyd",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	same := inventory.Compare(read(t, image()), read(t, image()), nil)
	if len(same.Packages)+len(same.Accounts)+len(same.Units)+len(same.Files)+len(same.Ports) != 0 {
		t.Errorf("of the image itself: %+v", same)
	}
}

func TestRecipe(t *testing.T) {
	contents := map[string]string{
		"/etc/motd": "welcome\n", "/etc/nginx/nginx.conf": "\x00binary", "/srv/shop/app.py": "print(1)\n", "/home/shop/.profile": "umask 027\n",
		"/srv/shop/key.pem": "-----BEGIN PRIVATE KEY-----\nMC4=\n", "/srv/shop/odd\nname": "x",
	}
	c := inventory.Compare(read(t, image()), read(t, built()), map[string]bool{"/etc/hostname": true})
	r, err := inventory.Recipe("blog", c, func(path string) ([]byte, bool) {
		text, ok := contents[path]
		return []byte(text), ok
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Packages []string         `yaml:"packages"`
		Files    []map[string]any `yaml:"write_files"`
		Boot     [][]string       `yaml:"bootcmd"`
		Commands [][]string       `yaml:"runcmd"`
		Rest     map[string]any   `yaml:",inline"`
	}
	if err := yaml.Unmarshal([]byte(r.UserData), &config); err != nil || !strings.HasPrefix(r.UserData, "#cloud-config\n") {
		t.Fatalf("%v:\n%s", err, r.UserData)
	}
	if diff := cmp.Diff([]string{"nginx"}, config.Packages); diff != "" {
		t.Error(diff)
	}
	files := []map[string]any{
		{"path": "/etc/motd", "owner": "root:root", "permissions": "0600", "content": "welcome\n", "defer": true},
		{"path": "/etc/nginx/nginx.conf", "owner": "root:root", "permissions": "0644", "content": "AGJpbmFyeQ==", "encoding": "b64", "defer": true},
		{"path": "/home/shop/.profile", "owner": "shop:shop", "permissions": "0644", "content": "umask 027\n", "defer": true},
		{"path": "/srv/shop/app.py", "owner": "shop:shop", "permissions": "0640", "content": "print(1)\n", "defer": true},
	}
	if diff := cmp.Diff(files, config.Files); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{
		"apt-get purge --yes -- nano", "gpasswd --members lodge,shop sudo", "install -d -o shop -g shop -m 2750 -- /srv/shop",
		"ln -sfnT -- app.py /srv/shop/current", "systemctl daemon-reload", "systemctl mask -- apt-daily.timer", "systemctl enable -- nginx.service",
	} {
		if !slices.ContainsFunc(config.Commands, func(c []string) bool { return strings.Join(c, " ") == want }) {
			t.Errorf("no command %q in %q", want, config.Commands)
		}
	}
	if len(config.Boot) != 2 || config.Boot[0][4] != "shop" || config.Boot[1][5] != "1001" {
		t.Errorf("accounts: %q", config.Boot)
	}
	var left []string
	for _, l := range r.LeftOut {
		left = append(left, l.Path)
	}
	if diff := cmp.Diff([]string{"/srv/shop/big", "/srv/shop/key.pem", "/srv/shop/odd\nname"}, left); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(r.UserData, "MC4=") {
		t.Error("a private key is in the recipe")
	}
}

// Files that may hold a secret stay out of recipes and of what is shown.
func TestShows(t *testing.T) {
	for _, f := range []struct {
		path, text string
		want       bool
	}{
		{"/etc/nginx/nginx.conf", "server { listen 80; }", true},
		{"/srv/app/main.py", "def password(): pass\ntoken = os.environ['TOKEN']\n", true},
		{"/etc/app.conf", "password = ${PASSWORD}\n", true},
		{"/root/.ssh/id_ed25519", "", false},
		{"/home/a/.ssh/deploy_key", "", false},
		{"/home/a/.aws/credentials", "", false},
		{"/home/a/.netrc", "", false},
		{"/srv/app/.env", "", false},
		{"/srv/app/.env.production", "", false},
		{"/etc/shadow", "", false},
		{"/etc/letsencrypt/live/a/privkey1.pem", "", false},
		{"/etc/a", "-----BEGIN OPENSSH PRIVATE KEY-----\n", false},
		{"/etc/a", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", false},
		{"/etc/a", "aws AKIAIOSFODNN7EXAMPLE\n", false},
		{"/etc/a", "ghp_0123456789abcdefghijklmnopqrstuvwxyz", false},
		{"/etc/a", "DATABASE=postgres://app:hunter22@db/app", false},
		{"/etc/a", `"api_key": "0123456789"`, false},
		{"/etc/a", "db_password=hunter22\n", false},
		{"/etc/a", "admin:$apr1$abc$def\n", false},
		{"/etc/a", "define('DB_PASSWORD', 'hunter2hunter');\n", false},
		{"/etc/a", "'password' => 'hunter22',\n", false},
		{"/etc/a", "SECRET_KEY = 'django-insecure-1'\n", false},
		{"/etc/a", "password=Tr0ub4dor&3#x\n", false},
		{"/etc/a", "<password>x</password>\n", false},
		{"/etc/a", "cache = redis://:pw12@host\n", false},
		{"/etc/a", "requirepass x1\n", false},
		{"/etc/a", "  password hunter22\n", false},
		{"/etc/a", "PASS=ab\n", false},
		{"/etc/a", `{"id":"eyJhbGciOiJSUzI1NiJ9.eyJ` + strings.Repeat("a", 1200) + `.c2ln"}`, false},
		{"/etc/a", strings.Repeat("keyx", 16<<10), false}, // it would take minutes
		{"/etc/postfix/sasl_passwd.db", "x", false},
		{"/etc/ppp/chap-secrets", "x", false},
		{"/etc/a", "# Set a password for the user.\n", true},
		{"/etc/a", "password = get_password()\n", true},
		{"/etc/a", "PasswordAuthentication no\n", true},
		{"/etc/a", "auth required pam_unix.so\n", true},
		{"/etc/a", "token: ${TOKEN}\n", true},
		{"/etc/a", "# the tokens of a line are separated by spaces\n", true},
		{"/etc/a", "binary\x00", false},
	} {
		if got := inventory.Shows(f.path, []byte(f.text)); got != f.want {
			t.Errorf("%s %q: %v", f.path, f.text, got)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":        "",
		"no header":      "# packages\x00# end\x00",
		"another header": "# lodge inventory 2\x00# end\x00",
		"no end":         "# lodge inventory 1\x00# files\x00",
		"cut record":     strings.TrimSuffix(answer(), "\x00"),
		"cut file":       "# lodge inventory 1\x00# files\x00f\t644\t0\t0\t1\t1\t/a\x00",
		"odd mode":       answer("# files", file("/a", "f", "999", 0, 1, "")),
		"relative path":  answer("# files", file("a", "f", "644", 0, 1, "")),
		"long record":    answer("# files", file("/"+strings.Repeat("a", 20000), "f", "644", 0, 1, "")),
		"stray record":   "stray\x00" + answer(),
	} {
		if _, err := inventory.Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := inventory.Read(strings.NewReader("")); !errors.Is(err, inventory.ErrNone) {
		t.Errorf("nothing: %v", err)
	}
}

// manyFiles is an answer that does not end.
type manyFiles struct{ n int }

func (m *manyFiles) Read(p []byte) (int, error) {
	m.n++
	if m.n == 1 {
		return copy(p, "# lodge inventory 1\x00# files\x00"), nil
	}
	return copy(p, file(fmt.Sprintf("/srv/%d", m.n), "f", "644", 0, 1, "")+"\x00"), nil
}

// A guest with more files than the limit is compared as far as that.
func TestReadIsCutOff(t *testing.T) {
	inv, err := inventory.Read(&manyFiles{})
	if err != nil || !inv.Cut || len(inv.Files) != 200_000 {
		t.Errorf("%v, %v, %d files", err, inv.Cut, len(inv.Files))
	}
	if c := inventory.Compare(read(t, image()), inv, nil); !c.Cut || slices.ContainsFunc(c.Files, func(f gateway.FileChange) bool { return f.Change == gateway.Gone }) {
		t.Error("files behind the limit are shown as removed")
	}
}

// FuzzRead: any answer of a guest gives an inventory or an error, and what is made of it is user data
// that cloud-init can parse.
func FuzzRead(f *testing.F) {
	f.Add(image())
	f.Add(built())
	f.Add(answer("# files", file("/srv/a'\"\n: b", "f", "4755", 7, 1, "")))
	base := read(f, image())
	f.Fuzz(func(t *testing.T, text string) {
		inv, err := inventory.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		r, err := inventory.Recipe("blog", inventory.Compare(base, inv, nil), func(path string) ([]byte, bool) { return []byte(path), true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(r.UserData), new(map[string]any)); err != nil {
			t.Fatalf("%v:\n%s", err, r.UserData)
		}
	})
}
