package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/sockets"
	"lodge/https/acme"
)

// acmeConfig is the table [acme] of the configuration file. Without it, the host's own authority
// signs all certificates, and no network is used.
type acmeConfig struct {
	Email      string `toml:"email"`        // of the account
	Directory  string `toml:"directory"`    // URL of the authority; default: Let's Encrypt
	RootFile   string `toml:"root_file"`    // PEM of the root that signed the certificate of a private authority
	EABKeyID   string `toml:"eab_key_id"`   // external account binding
	EABKeyFile string `toml:"eab_key_file"` // its key, in base64url
	Profile    string `toml:"profile"`      // such as "shortlived" (6 days)
	ARI        *bool  `toml:"ari"`          // whether the authority sets the time of renewal; default true
	Challenge  string `toml:"challenge"`    // "http", or a way to get a wildcard: "rfc2136", "exec", "responder"

	RFC2136 struct {
		Server     string        `toml:"server"`      // host or host:port of the primary name server
		Key        string        `toml:"key"`         // name of the TSIG key
		Algorithm  string        `toml:"algorithm"`   // default hmac-sha256
		SecretFile string        `toml:"secret_file"` // the key in base64
		Wait       time.Duration `toml:"wait"`        // how long secondary name servers take to copy the zone
	} `toml:"rfc2136"`
	Exec struct {
		Program string `toml:"program"` // called with present|cleanup FQDN VALUE
	} `toml:"exec"`
	Responder struct {
		Zone string `toml:"zone"` // delegated to this host; default _acme-challenge.<domain>
		Port int    `toml:"port"` // default 53
	} `toml:"responder"`
}

// setDefaults fills what the file leaves out.
func (a *acmeConfig) setDefaults(domain string) {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&a.Directory, acme.DefaultDirectory)
	set(&a.RFC2136.Algorithm, "hmac-sha256")
	set(&a.Responder.Zone, "_acme-challenge."+domain)
	if a.Responder.Port == 0 {
		a.Responder.Port = portDNS
	}
	if _, _, err := net.SplitHostPort(a.RFC2136.Server); err != nil && a.RFC2136.Server != "" {
		a.RFC2136.Server = net.JoinHostPort(a.RFC2136.Server, "53")
	}
}

func (a *acmeConfig) check(domain string) error {
	challenges := []string{"http", "rfc2136", "exec", "responder"}
	required := map[string]string{"acme.email": a.Email}
	switch a.Challenge {
	case "rfc2136":
		required["acme.rfc2136.server"], required["acme.rfc2136.key"], required["acme.rfc2136.secret_file"] = a.RFC2136.Server, a.RFC2136.Key, a.RFC2136.SecretFile
	case "exec":
		required["acme.exec.program"] = a.Exec.Program
	}
	for key, value := range required {
		if value == "" {
			return gateway.Invalid("%s is missing", key).WithHint("docs/public.md shows the table [acme].")
		}
	}
	switch {
	case !slices.Contains(challenges, a.Challenge):
		return gateway.Invalid("acme.challenge is %q", a.Challenge).WithHint("Choose %s.", strings.Join(challenges, ", "))
	case strings.HasSuffix(domain, ".localhost") || strings.HasSuffix(domain, ".internal"):
		return gateway.Invalid("no authority can sign for %s, a local domain", domain).WithHint("Set domain to one of your own, or remove the table [acme].")
	case !strings.HasPrefix(a.Directory, "https://"):
		return gateway.Invalid("acme.directory is %q", a.Directory).WithHint("Give an https URL.")
	case a.Responder.Port < 1 || a.Responder.Port > 65535:
		return gateway.Invalid("acme.responder.port is %d", a.Responder.Port).WithHint("A port is a number from 1 to 65535.")
	case a.Exec.Program != "" && !filepath.IsAbs(a.Exec.Program):
		return gateway.Invalid("acme.exec.program is %q", a.Exec.Program).WithHint("Give an absolute path.")
	case (a.EABKeyID == "") != (a.EABKeyFile == ""):
		return gateway.Invalid("acme.eab_key_id and acme.eab_key_file belong together").WithHint("Set both, or neither.")
	}
	return nil
}

// source returns the configuration of package acme. The Responder is nil unless it is the chosen
// challenge.
func (a *acmeConfig) source(domain string, kv acme.KV, log *slog.Logger) (*acme.Config, *acme.Responder, error) {
	if a == nil {
		return nil, nil, nil
	}
	config := &acme.Config{
		Email: a.Email, Directory: a.Directory, KeyID: a.EABKeyID, Profile: a.Profile, NoARI: a.ARI != nil && !*a.ARI, KV: kv,
	}
	var err error
	if a.RootFile != "" {
		if config.Roots, err = readRoots(a.RootFile); err != nil {
			return nil, nil, err
		}
	}
	if a.EABKeyFile != "" {
		if config.MACKey, err = readSecret(a.EABKeyFile); err != nil {
			return nil, nil, err
		}
	}
	switch a.Challenge {
	case "rfc2136":
		secret, err := readSecret(a.RFC2136.SecretFile)
		if err != nil {
			return nil, nil, err
		}
		config.Records = &acme.RFC2136{
			Server: a.RFC2136.Server, Key: a.RFC2136.Key, Algorithm: a.RFC2136.Algorithm, Secret: secret, Wait: a.RFC2136.Wait,
		}
	case "exec":
		config.Records = &acme.Hook{Program: a.Exec.Program}
	case "responder":
		responder := acme.NewResponder(a.Responder.Zone, domain, log)
		config.Records = responder
		return config, responder, nil
	}
	return config, nil, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read acme.root_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, gateway.Invalid("%s has no certificate", file).WithHint("acme.root_file is a PEM file.")
	}
	return pool, nil
}

func readSecret(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// responderSockets are those of the name server for a delegated _acme-challenge.
type responderSockets struct {
	tcp []net.Listener
	udp []net.PacketConn
}

// openResponder takes or opens the sockets, if the configuration asks for the name server.
func openResponder(ctx context.Context, cfg Config, kept *sockets.Set) (_ *responderSockets, err error) {
	s := &responderSockets{}
	if !cfg.answersDNS() {
		return s, nil
	}
	defer func() {
		if err != nil {
			_ = s.close() // the error that is returned has the reason
		}
	}()
	for _, a := range cfg.Listen {
		at := netip.AddrPortFrom(a, uint16(cfg.ACME.Responder.Port)) //nolint:gosec // acmeConfig.check has checked the range
		l, err := listenTCP(ctx, kept, "dns", at)
		if err != nil {
			return nil, err
		}
		s.tcp = append(s.tcp, l)
		c, err := listenUDP(ctx, kept, "dns", at)
		if err != nil {
			return nil, err
		}
		s.udp = append(s.udp, c)
	}
	return s, nil
}

// serve starts r at every socket.
func (s *responderSockets) serve(r *acme.Responder, start func(name string, run func() error)) {
	for _, l := range s.tcp {
		start("acme dns", func() error { return r.ServeTCP(l) })
	}
	for _, c := range s.udp {
		start("acme dns", func() error { return r.ServeUDP(c) })
	}
}

func (s *responderSockets) close() error {
	var errs []error
	for _, l := range s.tcp {
		errs = append(errs, l.Close())
	}
	for _, c := range s.udp {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
