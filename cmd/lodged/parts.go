package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/gateway/dns"
	"lodge/gateway/domains"
	"lodge/gateway/forward"
	"lodge/gateway/issuer"
	"lodge/gateway/metadata"
	"lodge/gateway/ntp"
	"lodge/gateway/sockets"
	"lodge/https"
	"lodge/https/acme"
	"lodge/https/names"
	"lodge/mail"
	"lodge/mail/verdict"
	"lodge/storage"
	"lodge/vmhost"
	"lodge/vmhost/accel"
	"lodge/vmhost/netid"
)

// The TCP ports of gateway.LinkLocal that guests reach. The host has no other service for them but
// NTP.
const (
	portSMTP       = 25
	portDNS        = 53
	portHTTP       = 80
	portIMAP       = 143
	portHTTPS      = 443
	portSubmission = 587
)

// parts are the daemon's services.
type parts struct {
	taps      tapListeners
	host      *vmhost.Host
	web       *https.Server
	responder *acme.Responder // nil unless the configuration asks for it
	mail      *mail.Server
	objects   *storage.Server
	dns       *dns.Server
	issuer    *issuer.Issuer
	guestHTTP *gateway.DrainedServer // metadata, S3 and redirects to https, on taps
	hostS3    *gateway.DrainedServer // S3 for the host itself, on a unix socket
	images    images
	forwards  *forward.Server
	mailWaker *mailWaker
	askNotes  *askNotes
	verbs     *api.API
	control   *control.Server
}

// tapListeners are the listeners on the taps.
type tapListeners struct {
	*gateway.TapListeners
	http, https, imap, dns, smtp, submission net.Listener
}

func openListeners(names *dns.Server, clock *ntp.Server, kept *sockets.Set) tapListeners {
	d := gateway.NewTapListeners()
	d.Sockets = kept
	d.Packets(portDNS, names.ServeUDP)
	d.PacketsUnlessTaken(ntp.Port, clock.ServeUDP) // a host's own NTP server answers guests as well
	return tapListeners{
		TapListeners: d,
		http:         d.Listener(portHTTP), https: d.Listener(portHTTPS), imap: d.Listener(portIMAP), dns: d.Listener(portDNS),
		smtp: d.Listener(portSMTP), submission: d.Listener(portSubmission),
	}
}

// assemble makes every part and connects it to the others. Nothing runs yet.
func assemble(cfg Config, s *state, kept *sockets.Set, log *slog.Logger) (p *parts, err error) {
	p = new(parts)
	if p.objects, err = storage.New(storage.Config{
		Dir: cfg.path("objects"), Keyring: s.keyring, Directory: s.directory, People: s.people, Logger: log,
		Outside: s3Name(cfg), Domain: cfg.Domain, Quota: int64(cfg.S3Quota), AccessLog: cfg.AccessLog, Logins: bucketLogins{p},
	}); err != nil {
		return nil, fmt.Errorf("object storage: %w", err)
	}
	if p.issuer, err = newIssuer(cfg, log); err != nil {
		return nil, fmt.Errorf("identity tokens: %w", err)
	}
	self := metadata.New(metadata.Config{
		Directory: s.directory, Keyring: s.keyring, Issuer: p.issuer, Domain: cfg.Domain, URL: p.url,
		Mail: http.HandlerFunc(p.guestMail), Checkpoints: p.guestCheckpoints, Logger: log,
	})
	guests := gateway.GuestMux(p.objects.Handler(), self.Handler())
	web := webConfig(cfg, s, guests, p.wake, log)
	p.askNotes = newAskNotes(s.directory, s.people, log)
	web.Asked = p.askNotes.asked
	web.Services = map[string]http.Handler{s3Name(cfg): p.objects.OutsideHandler()}
	web.Root, web.Verbs = p.issuer.Handlers(), buttons{p, s.requests}
	if web.ACME, p.responder, err = cfg.ACME.source(cfg.Domain, s.store.KV(), log); err != nil {
		return nil, err
	}
	if web.LoginProviders, err = cfg.LoginProviders.read(); err != nil {
		return nil, err
	}
	if p.web, err = https.New(web); err != nil {
		return nil, fmt.Errorf("https: %w", err)
	}
	p.dns = dns.New(dns.Config{Directory: s.directory, Domain: cfg.Domain, ResolvConf: "/etc/resolv.conf", Logger: log})
	p.taps = openListeners(p.dns, ntp.New(log), kept)
	p.forwards = newForwards(cfg, s, kept, log)
	if err := p.assembleHost(cfg, s, log); err != nil {
		return nil, err
	}
	p.askNotes.notify, p.askNotes.url = p.mail.Notify, p.web.RequestURL
	p.askNotes.start()
	p.guestHTTP = httpServer(p.web.RedirectPages(guests), gateway.ConnContext, log)
	p.hostS3 = httpServer(p.objects.HostHandler(), nil, log)
	if p.images, err = newImages(cfg, p.host); err != nil {
		return nil, err
	}
	p.verbs = p.newVerbs(cfg, s, log)
	p.control = control.New(control.Config{
		API: p.verbs, Logger: log,
		Metrics: metricsHandler(func() map[string]int { return byDesired(s.directory) },
			p.web.Collectors(), p.mail.Collectors(), p.objects.Collectors(), p.issuer.Collectors()),
	})
	return p, nil
}

// newVerbs returns the API over all parts.
func (p *parts) newVerbs(cfg Config, s *state, log *slog.Logger) *api.API {
	return api.New(api.Config{
		Directory: s.directory, People: s.people, Requests: s.requests, Keyring: s.keyring,
		Machines: p.host, Observer: p.host, Terminals: p.host, Examiner: p.host, Checkpoints: p.host, Mailbox: p.mail, MailDesk: p.mail, Notices: p.mail, Objects: p.objects, S3URL: names.Origin(s3Name(cfg), cfg.HTTPSPort), S3Quota: int64(cfg.S3Quota), Web: p.web, Passes: p.web, Ports: p.web,
		Images: p.images, Forwarder: p.forwards, Domains: domains.New(domains.Config{Domain: cfg.Domain, ResolvConf: "/etc/resolv.conf"}),
		Doctor: p.doctor(cfg), Domain: cfg.Domain, Version: version(), Logger: log, Ready: p.host.Ready,
	})
}

// assembleHost makes the host of the VMs, and mail: mail needs the host's login key, and the host
// removes a VM's mail.
func (p *parts) assembleHost(cfg Config, s *state, log *slog.Logger) error {
	mode, err := accel.Parse(cfg.Accel)
	if err != nil {
		return err
	}
	guests := netid.New(netid.Config{
		Net: cfg.GuestNet, TCP: []uint16{portSMTP, portDNS, portHTTP, portIMAP, portHTTPS, portSubmission}, UDP: []uint16{portDNS, ntp.Port}, Logger: log,
	})
	hostConfig := vmhost.Config{
		StateDir: cfg.StateDir, RunDir: cfg.RunDir, Domain: cfg.Domain, RootPEM: p.web.RootPEM(),
		Directory: s.directory, Layers: s.store.Layers(), Checkpoints: s.store.Checkpoints(), Net: guests, TapListeners: p.taps, Accel: mode, LibvirtSocket: cfg.LibvirtSocket,
		Defaults: gateway.Size{Image: cfg.Image}, Logger: log,
	}
	p.mailWaker = newMailWaker(s.directory, p.wakeIf, log)
	out, err := mailOut(cfg)
	if err != nil {
		return err
	}
	if p.mail, err = mail.New(mail.Config{
		Dir: cfg.path("mail"), Domain: cfg.Domain, Directory: s.directory, SSHKeyFile: hostConfig.LoginKeyFile(),
		TLS: p.web.MailTLS(), Verdicts: verdicts(cfg), Screen: mailScreen(cfg), Arrived: p.mailWaker.arrived, People: s.people, Out: out, Objects: p.objects, Logger: log,
	}); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	if err := publishKeys(p.responder, p.mail, cfg); err != nil {
		return err
	}
	hostConfig.OnRemove = []func(context.Context, gateway.ID) error{
		p.web.Remove, p.mail.Remove, p.objects.Remove, p.forwards.RemoveVM, p.issuer.Remove,
	}
	hostConfig.Parts = p.covered()
	if p.host, err = vmhost.New(hostConfig); err != nil {
		return fmt.Errorf("virtual machines: %w", err)
	}
	return nil
}

// covered are what a VM's checkpoints cover beside its disk. A rollback rewinds them in this order: mail that came
// later is delivered again at once, also into buckets, which go back before.
func (p *parts) covered() []gateway.Part { return []gateway.Part{p.objects, p.mail} }

// verdicts returns what checks the senders of mail; nil if nothing does.
func verdicts(cfg Config) *verdict.Checker {
	if !cfg.MailVerdicts {
		return nil
	}
	return verdict.New(verdict.NewResolver("/etc/resolv.conf"))
}

func (p *parts) doctor(cfg Config) *doctor {
	d := &doctor{cfg: cfg, resolver: net.DefaultResolver}
	if source := p.web.ACMESource(); source != nil {
		d.wildcard = source.Wildcard
	}
	return d
}

// url returns the address of a VM's page. It works once all parts are assembled.
func (p *parts) url(vm gateway.VM, port uint16) string { return p.web.URL(vm, port) }

// guestMail answers a VM about its mail. It works once all parts are assembled.
func (p *parts) guestMail(w http.ResponseWriter, r *http.Request) { p.mail.Inside().ServeHTTP(w, r) }

// guestCheckpoints are a VM's verbs on its own checkpoints. They work once all parts are assembled.
func (p *parts) guestCheckpoints(vm gateway.Identity) metadata.Checkpoints {
	return p.verbs.As(api.VMCaller(vm))
}

// bucketLogins are the logins at the names of buckets. They work once all parts are assembled.
type bucketLogins struct{ *parts }

// EnterBucket implements storage.Logins.
func (b bucketLogins) EnterBucket(r *http.Request) (context.Context, gateway.Level, func()) {
	return b.web.EnterBucket(r)
}

// TurnAwayFromBucket implements storage.Logins.
func (b bucketLogins) TurnAwayFromBucket(w http.ResponseWriter, r *http.Request) bool {
	return b.web.TurnAwayFromBucket(w, r)
}

// wake starts a stopped VM for a web request. It works once all parts are assembled.
func (p *parts) wake(ctx context.Context, id gateway.ID) error {
	return p.wakeIf(ctx, id, func(m gateway.VM) bool { return m.WakeOnRequest })
}

func (p *parts) wakeIf(ctx context.Context, id gateway.ID, may func(gateway.VM) bool) error {
	return p.host.Wake(ctx, id, may)
}

func webConfig(cfg Config, s *state, guests http.Handler, wake func(context.Context, gateway.ID) error, log *slog.Logger) https.Config {
	return https.Config{
		Domain: cfg.Domain, Port: cfg.HTTPSPort, Dir: cfg.path("ca"),
		Directory: s.directory, People: s.people, Logins: s.store.Logins(), Sessions: s.store.WebSessions(), Passkeys: s.store.Passkeys(), Kept: s.store, Requests: s.requests,
		Inside: map[string]http.Handler{gateway.S3Host: guests}, Wake: wake, TrustedProxies: cfg.TrustedProxies, AccessLog: cfg.AccessLog,
		Passthrough: s.directory.PassedThrough, HTTP3: cfg.HTTP3, Logger: log,
	}
}

// httpServer is a plain server with limits on what a caller can hold.
func httpServer(h http.Handler, connContext func(context.Context, net.Conn) context.Context, log *slog.Logger) *gateway.DrainedServer {
	return gateway.NewDrainedServer(&http.Server{
		Handler: h, ConnContext: connContext, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	})
}

// shutdown closes the servers after their open requests, within shutdownLimit.
func (p *parts) shutdown(log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	err := shutAll(ctx, log, p.control.Shutdown, p.web.Shutdown, p.mail.Shutdown, p.mailWaker.shutdown, p.askNotes.shutdown, p.guestHTTP.Shutdown, p.hostS3.Shutdown,
		p.host.Agent().Shutdown)
	err = errors.Join(err, shutAll(ctx, log, p.forwards.Shutdown)) // last: nothing holds its ports from here on
	p.taps.Shutdown()
	return err
}

// shutAll shuts servers down in parallel, so that one endless answer takes no time from the others.
// Requests that are cut off when ctx ends are no error.
func shutAll(ctx context.Context, log *slog.Logger, servers ...func(context.Context) error) error {
	var group errgroup.Group
	for _, shut := range servers {
		group.Go(func() error {
			err := shut(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				log.Info("requests were cut off", "err", err)
				return nil
			}
			return err
		})
	}
	return group.Wait()
}
