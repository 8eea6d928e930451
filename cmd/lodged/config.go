package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/vmhost/libvirt"
)

// Config has the settings of lodged. Every key is optional in the file. A flag has the key's name,
// with dashes, and overrides the file.
type Config struct {
	Domain         string         `toml:"domain" help:"VMs are at https://<vm>.<domain>"`
	Owner          string         `toml:"owner" help:"mail address of this host's owner, as apps in VMs see it"`
	Listen         []netip.Addr   `toml:"listen" help:"addresses for the web and mail from outside, separated by commas"`
	HTTPSPort      int            `toml:"https_port" help:"port for HTTPS; part of URLs unless it is 443"`
	HTTPPort       int            `toml:"http_port" help:"port that redirects to HTTPS"`
	HTTP3          bool           `toml:"http3" help:"serve HTTP/3 too, at the UDP port of https_port"`
	SMTPPort       int            `toml:"smtp_port" help:"port for inbound mail"`
	IMAPPort       int            `toml:"imap_port" help:"port for IMAP with TLS, by which people read the mail of VMs with a password, usually 993; 0 is none"`
	MailVerdicts   bool           `toml:"mail_verdicts" help:"check the senders of inbound mail: SPF, DKIM and DMARC"`
	GuestNet       netip.Prefix   `toml:"guest_net" help:"IPv4 net of guest addresses"`
	StateDir       string         `toml:"state_dir" help:"directory of all that is kept"`
	RunDir         string         `toml:"run_dir" help:"directory of sockets, emptied by a reboot"`
	Image          string         `toml:"image" help:"base image of VMs that name none"`
	Accel          string         `toml:"accel" help:"how guests run: auto, kvm or tcg"`
	LibvirtSocket  string         `toml:"libvirt_socket" help:"unix socket of libvirtd"`
	TrustedProxies []netip.Prefix `toml:"trusted_proxies" help:"nets of proxies that are believed about their client's address, separated by commas"`
	LogLevel       slog.Level     `toml:"log_level" help:"DEBUG, INFO, WARN or ERROR"`
	LogFormat      string         `toml:"log_format" help:"text or json"`
	AccessLog      bool           `toml:"access_log" help:"log every web and S3 request"`
	S3Quota        byteSize       `toml:"s3_quota" help:"the most that each VM may store in S3 unless lodge s3 quota says otherwise, such as 50GiB, or none"`
	ACME           *acmeConfig    `toml:"acme"`           // a table, in the file alone; nil without one
	LoginProviders loginProviders `toml:"login_provider"` // tables, as above

	MailOut                   bool   `toml:"mail_out" help:"send mail of VMs to other hosts"`
	MailSmarthost             string `toml:"mail_smarthost" help:"server that takes all mail to other hosts, host:port; without it, mail goes to its recipients' servers"`
	MailSmarthostUser         string `toml:"mail_smarthost_user" help:"user at that server"`
	MailSmarthostPasswordFile string `toml:"mail_smarthost_password_file" help:"file with the password of that user"`

	MailBlocklists   []string `toml:"mail_blocklists" help:"zones of DNS blocklists whose clients may not send mail, separated by commas"`
	MailGreylist     bool     `toml:"mail_greylist" help:"delay the first mail of a sender without SPF and DKIM by 5 minutes"`
	MailRspamd       string   `toml:"mail_rspamd" help:"URL of rspamd, which checks inbound mail, such as http://127.0.0.1:11333"`
	MailRspamdReject bool     `toml:"mail_rspamd_reject" help:"refuse mail that rspamd rejects, instead of marking it as spam"`
}

const defaultConfigFile = "/etc/lodge/lodge.toml"

func defaultConfig() Config {
	return Config{
		Domain:        "lodge.localhost",
		Owner:         "owner@lodge.localhost",
		Listen:        []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		HTTPSPort:     443,
		HTTPPort:      80,
		SMTPPort:      25,
		MailVerdicts:  true,
		MailOut:       true,
		GuestNet:      netip.MustParsePrefix("10.213.0.0/16"),
		StateDir:      gateway.DefaultStateDir,
		RunDir:        gateway.DefaultRunDir,
		Image:         gateway.DefaultImage,
		Accel:         "auto",
		LibvirtSocket: libvirt.DefaultSocket,
		LogLevel:      slog.LevelInfo,
		LogFormat:     "text",
	}
}

func readConfigFile(path string, cfg *Config) error {
	meta, err := toml.DecodeFile(path, cfg)
	if errors.Is(err, fs.ErrNotExist) && path == defaultConfigFile {
		return nil
	}
	if err != nil {
		return gateway.Invalid("read %s: %v", path, err).WithHint("Correct the file; every key may be left out.")
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return gateway.Invalid("%s has an unknown key %q", path, unknown[0]).WithHint("lodged -help lists the keys; flags have the same names with dashes.")
	}
	return nil
}

func (c Config) check() error {
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return gateway.Invalid("log_format is %q", c.LogFormat).WithHint("Choose text or json.")
	}
	for name, port := range map[string]int{"https_port": c.HTTPSPort, "http_port": c.HTTPPort, "smtp_port": c.SMTPPort} {
		if port < 1 || port > 65535 {
			return gateway.Invalid("%s is %d", name, port).WithHint("A port is a number from 1 to 65535.")
		}
	}
	if c.IMAPPort < 0 || c.IMAPPort > 65535 {
		return gateway.Invalid("imap_port is %d", c.IMAPPort).WithHint("A port is a number from 1 to 65535; 0 is none.")
	}
	for name, dir := range map[string]string{"state_dir": c.StateDir, "run_dir": c.RunDir} {
		if !filepath.IsAbs(dir) {
			return gateway.Invalid("%s is %q", name, dir).WithHint("Give an absolute path.")
		}
	}
	switch {
	case !c.GuestNet.IsValid() || !c.GuestNet.Addr().Is4() || c.GuestNet.Bits() > 29:
		return gateway.Invalid("guest_net is %s", c.GuestNet).WithHint("Give an IPv4 net of at least 8 addresses, such as 10.213.0.0/16.")
	case len(c.Listen) == 0:
		return gateway.Invalid("listen is empty").WithHint("Give at least one address, such as 127.0.0.1.")
	case c.Accel != "auto" && c.Accel != "kvm" && c.Accel != "tcg":
		return gateway.Invalid("accel is %q", c.Accel).WithHint("Choose auto, kvm or tcg.")
	}
	for _, p := range c.TrustedProxies {
		if p.Bits() == 0 {
			return gateway.Invalid("trusted_proxies has %s, which lets every client choose its address", p).
				WithHint("Name the proxies one by one, such as 127.0.0.1/32.")
		}
	}
	for _, a := range c.Listen {
		if a.IsUnspecified() {
			return gateway.Invalid("listen has %s, which would take the ports of the listeners on the taps", a).
				WithHint("Name the host's addresses one by one.")
		}
	}
	if _, err := people.ParseAddress(c.Owner); err != nil {
		return gateway.Invalid("owner: %v", err).WithHint("Give a mail address such as owner@example.com.")
	}
	if err := c.checkMail(); err != nil {
		return err
	}
	if _, err := c.LoginProviders.read(); err != nil { // the files too: a missing secret fails at the start
		return err
	}
	if err := checkDomain(c.Domain); err != nil || c.ACME == nil {
		return err
	}
	return c.ACME.check(c.Domain)
}

func checkDomain(domain string) error {
	if strings.HasSuffix("."+domain, "."+gateway.InternalDomain) || len(domain) > 180 || !strings.Contains(domain, ".") {
		return gateway.Invalid("domain is %q", domain).WithHint("Give a domain of at least two labels, such as lodge.localhost.")
	}
	for label := range strings.SplitSeq(domain, ".") {
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(label, "-") != label || label == "" || len(label) > 63 {
			return gateway.Invalid("domain is %q: the label %q is not a host name's", domain, label).
				WithHint("Use lower-case letters, digits and dashes, such as lodge.localhost.")
		}
	}
	return nil
}

// prepareDirs makes the directories of the state, so that a missing one fails at the start.
func (c Config) prepareDirs() error {
	for _, dir := range []string{c.StateDir, c.RunDir, c.path("disks"), c.path("mail"), c.path("objects"), c.path("ca"), c.path("ssh")} {
		if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // libvirt's QEMU, another user, passes through to its disks
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

func (c Config) path(name string) string { return filepath.Join(c.StateDir, name) }
