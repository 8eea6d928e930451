package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/https/login/oidc"
	"lodge/mail/relay"
	"lodge/mail/screen"
)

func TestFlagsBeatTheFileAndTheFileBeatsTheDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lodge.toml")
	content := "domain = \"vm.example.org\"\nhttps_port = 8443\nlisten = [\"127.0.0.1\", \"::1\"]\ns3_quota = \"50GiB\"\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := readConfig([]string{"-config", file, "-https-port", "9443", "-access-log"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Domain != "vm.example.org" || cfg.HTTPSPort != 9443 || cfg.SMTPPort != 25 || !cfg.AccessLog || len(cfg.Listen) != 2 {
		t.Errorf("got %+v", cfg)
	}
	if cfg.S3Quota != 50<<30 || cfg.S3Quota.String() != "50 GiB" || defaultConfig().S3Quota.String() != "none" {
		t.Errorf("quota of S3 %s, by default %s", cfg.S3Quota, defaultConfig().S3Quota)
	}
	if cfg.GuestNet != netip.MustParsePrefix("10.213.0.0/16") {
		t.Errorf("guest net is %s", cfg.GuestNet)
	}
}

func TestLoginProviders(t *testing.T) {
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "lodge.toml"), filepath.Join(dir, "secret")
	content := "[[login_provider]]\nname = \"work\"\nissuer = \"https://x.example/\"\nclient_id = \"lodge\"\nclient_secret_file = \"" + secret +
		"\"\ndomains = [\"example.org\"]\n[[login_provider]]\nname = \"public\"\nissuer = \"https://y.example\"\nclient_id = \"z\"\n"
	for name, text := range map[string]string{file: content, secret: "hidden\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, _, err := readConfig([]string{"-config", file}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	want := []oidc.Provider{
		{Name: "work", Issuer: "https://x.example/", ClientID: "lodge", Secret: "hidden", Domains: []string{"example.org"}},
		{Name: "public", Issuer: "https://y.example", ClientID: "z"},
	}
	if got, err := cfg.LoginProviders.read(); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
}

func TestSmarthost(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-config", os.DevNull, "-mail-smarthost", "smtp.example:587", "-mail-smarthost-user", "me", "-mail-smarthost-password-file", password}
	cfg, _, err := readConfig(args, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := mailOut(cfg)
	if err != nil || out.Smarthost == nil || *out.Smarthost != (relay.Smarthost{Addr: "smtp.example:587", User: "me", Password: "hidden"}) {
		t.Errorf("%+v, %v", out, err)
	}
	cfg.MailOut = false
	if out, err := mailOut(cfg); out != nil || err != nil {
		t.Errorf("off: %+v, %v", out, err)
	}
}

func TestMailScreen(t *testing.T) {
	cfg, _, err := readConfig([]string{"-config", os.DevNull}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if got := mailScreen(cfg); got.Blocklists != nil || got.Greylist || got.Rspamd != "" || got.Reject {
		t.Errorf("not off: %+v", got)
	}
	args := []string{"-config", os.DevNull, "-mail-blocklists", "bl.example, two.example", "-mail-greylist", "-mail-rspamd", "http://127.0.0.1:11333/", "-mail-rspamd-reject"}
	if cfg, _, err = readConfig(args, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	want := screen.Config{Blocklists: []string{"bl.example", "two.example"}, Greylist: true, Rspamd: "http://127.0.0.1:11333/", Reject: true}
	got := mailScreen(cfg)
	if got.Resolver == nil {
		t.Error("no resolver")
	}
	if got.Resolver = nil; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"unknown key":       "domian = \"x.example\"",
		"not TOML":          "domain = ",
		"port too large":    "https_port = 65536",
		"port zero":         "https_port = 0",
		"port below zero":   "smtp_port = -1",
		"port of IMAP":      "imap_port = 65536",
		"guest net is IPv6": "guest_net = \"fd00::/64\"",
		"guest net tiny":    "guest_net = \"10.0.0.0/30\"",
		"accel":             "accel = \"fast\"",
		"wildcard address":  "listen = [\"0.0.0.0\"]",
		"no address":        "listen = []",
		"relative path":     "state_dir = \"lib\"",
		"domain one label":  "domain = \"localhost\"",
		"domain upper case": "domain = \"Lodge.localhost\"",
		"domain empty part": "domain = \"lodge..localhost\"",
		"internal domain":   "domain = \"lodge.internal\"",
		"below internal":    "domain = \"host.lodge.internal\"",
		"proxy no net":      "trusted_proxies = [\"127.0.0.1\"]",
		"all are proxies":   "trusted_proxies = [\"0.0.0.0/0\"]",
		"smarthost, name":   "mail_smarthost = \"smtp.example\"",
		"smarthost, TLS":    "mail_smarthost = \"smtp.example:465\"",
		"smarthost, user":   "mail_smarthost = \"smtp.example:587\"\nmail_smarthost_user = \"x\"",
		"smarthost, file":   "mail_smarthost = \"smtp.example:587\"\nmail_smarthost_user = \"x\"\nmail_smarthost_password_file = \"/none\"",
		"smarthost, none":   "mail_smarthost_user = \"x\"\nmail_smarthost_password_file = \"/none\"",
		"blocklist, URL":    "mail_blocklists = [\"https://bl.example\"]",
		"blocklist, label":  "mail_blocklists = [\"bl\"]",
		"blocklists":        "mail_blocklists = [\"a.x\", \"b.x\", \"c.x\", \"d.x\", \"e.x\", \"f.x\", \"g.x\", \"h.x\", \"i.x\"]",
		"rspamd, host":      "mail_rspamd = \"127.0.0.1:11333\"",
		"rspamd, path":      "mail_rspamd = \"http://127.0.0.1:11333/checkv2\"",
		"rspamd, password":  "mail_rspamd = \"http://a:b@127.0.0.1:11333\"",
		"rspamd, none":      "mail_rspamd_reject = true",
		"S3 quota":          "s3_quota = \"plenty\"",
		"log format":        "log_format = \"xml\"",
		"provider, no id":   "[[login_provider]]\nname = \"x\"\nissuer = \"https://x.example\"",
		"provider, plain":   "[[login_provider]]\nname = \"x\"\nissuer = \"http://x.example\"\nclient_id = \"lodge\"",
		"provider, key":     "[[login_provider]]\nname = \"x\"\nissuer = \"https://x.example\"\nclient_id = \"lodge\"\nsecret = \"x\"",
		"provider, no file": "[[login_provider]]\nname = \"x\"\nissuer = \"https://x.example\"\nclient_id = \"lodge\"\nclient_secret_file = \"/none\"",
		"providers, name":   strings.Repeat("[[login_provider]]\nname = \"x\"\nissuer = \"https://x.example\"\nclient_id = \"lodge\"\n", 2),
		"acme, local":       "[acme]\nemail = \"ann@example.org\"\nchallenge = \"http\"",
		"acme, no email":    "domain = \"vm.example\"\n[acme]\nchallenge = \"http\"",
		"acme, challenge":   "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"",
		"acme, no server":   "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\nchallenge = \"rfc2136\"",
		"acme, no program":  "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\nchallenge = \"exec\"",
		"acme, program":     "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\nchallenge = \"exec\"\nexec.program = \"hook\"",
		"acme, plain http":  "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\nchallenge = \"http\"\ndirectory = \"http://ca\"",
		"acme, half of EAB": "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\nchallenge = \"http\"\neab_key_id = \"x\"",
		"acme, unknown key": "domain = \"vm.example\"\n[acme]\nemail = \"ann@example.org\"\nchallenge = \"http\"\nmail = \"x\"",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "lodge.toml")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readConfig([]string{"-config", file}, &bytes.Buffer{}); gateway.KindOf(err) != gateway.KindInvalid {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, _, err := readConfig([]string{"-config", "/nonexistent/lodge.toml"}, &bytes.Buffer{}); err == nil {
		t.Error("a file that was named and is missing was passed over")
	}
}

func TestEveryKeyHasAFlagAndHelp(t *testing.T) {
	var help bytes.Buffer
	cfg := defaultConfig()
	flags := configFlags(&cfg, &options{}, &help)
	fields := reflect.TypeFor[Config]()
	for f := range fields.Fields() {
		if isTable(f) {
			continue
		}
		flag := flags.Lookup(flagName(f))
		if flag == nil || flag.Usage == "" {
			t.Errorf("%s has no flag, or no help", f.Name)
			continue
		}
		if err := flags.Set(flag.Name, flag.DefValue); err != nil {
			t.Errorf("the default of %s cannot be set: %v", flag.Name, err)
		}
	}
	if diff := cmp.Diff(defaultConfig(), cfg, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("setting every flag to its default changed the configuration:\n%s", diff)
	}
}

func TestCheckAndVersionEndBeforeTheDaemonStarts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lodge.toml")
	if err := os.WriteFile(file, []byte("accel = \"fast\""), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-config", file, "-check"}, nil, &out, &out); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("a bad file: %v", err)
	}
	if err := run(t.Context(), []string{"-config", file, "-accel", "tcg", "-check"}, nil, &out, &out); err != nil {
		t.Errorf("corrected by a flag: %v", err)
	}
	if err := run(t.Context(), []string{"-version"}, nil, &out, &out); err != nil || !strings.Contains(out.String(), "lodged "+version()) {
		t.Errorf("version: %v, %s", err, &out)
	}
}

func TestOnlyOneDaemonPerStateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockState(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	held, err := listenTCP(t.Context(), nil, "", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }() // until here it must not be collected: a collected listener is closed
	_, err = listenTCP(t.Context(), nil, "", netip.MustParseAddrPort(held.Addr().String()))
	if gateway.KindOf(err) != gateway.KindConflict || !bytes.Contains([]byte(err.Error()), []byte("lodged.test (process ")) {
		t.Errorf("got %v", err)
	}
}
