package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"lodge/cmd/lodged/memory"
	"lodge/gateway"
)

// shutdownLimit is how long open requests may take to finish after SIGTERM.
const shutdownLimit = 20 * time.Second

// errEnded is the error of a part that returned before it was shut down.
var errEnded = errors.New("ended by itself")

// run runs lodged: the daemon, or the helper that builds an image.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "build-image" {
		return buildImage(ctx, args[1:], stdin, stdout, stderr)
	}
	return runDaemon(ctx, args, stdout, stderr)
}

// runDaemon runs the daemon. It returns when ctx has ended and everything is closed, or with the
// first error of a part.
func runDaemon(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, opts, err := readConfig(args, stderr)
	switch {
	case opts.version && !errors.Is(err, flag.ErrHelp):
		_, err := fmt.Fprintln(stdout, "lodged", version())
		return err
	case err != nil:
		return err
	case opts.check:
		_, err := fmt.Fprintln(stdout, "the configuration is valid")
		return err
	}
	if os.Geteuid() != 0 {
		return gateway.Errorf(gateway.KindDenied, "lodged must run as root: it makes taps and firewall rules").
			WithHint("Run it with sudo, or as a systemd unit: systemctl start lodged")
	}
	log := newLogger(cfg, stderr)
	catchLibraries(log)
	state, err := openState(ctx, cfg)
	if err != nil {
		return err
	}
	if err := state.recordOwner(ctx, log); err != nil {
		return errors.Join(err, state.close())
	}
	outside, kept, err := openSockets(ctx, cfg, log)
	if err != nil {
		return errors.Join(err, state.close())
	}
	parts, err := assemble(cfg, state, kept, log)
	if err != nil {
		return errors.Join(err, outside.close(), state.close())
	}
	serving := untilUpgrade(ctx, args, log)
	err = errors.Join(serve(serving, parts, outside, log), state.close())
	if ctx.Err() == nil && errors.Is(context.Cause(serving), errUpgrade) {
		if err != nil { // the new program was checked, and nothing else would start it
			log.Error("daemon did not stop cleanly", "err", err)
		}
		return replace(args, kept)
	}
	return err
}

func newLogger(cfg Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// serve runs every part until ctx ends or one of them fails, then shuts all of them down.
func serve(ctx context.Context, p *parts, outside *hostListeners, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	start := func(name string, run func() error) {
		group.Go(func() error {
			if err := run(); ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, cmp.Or(err, errEnded))
			}
			return nil
		})
	}
	group.Go(func() error {
		memory.Keep(ctx)
		return nil
	})
	start("virtual machines", func() error { return p.host.Run(ctx) })
	start("templates", func() error { return p.images.prepareTemplates(ctx) })
	engine, stopEngine := context.WithCancel(context.WithoutCancel(ctx)) // open requests need it until they end
	start("object storage", func() error { return p.objects.Run(engine) })
	start("mail delivery", func() error { return p.mail.Run(ctx) })
	start("forwarded ports", func() error { return p.forwards.Run(ctx) })
	for _, l := range outside.https {
		start("https", func() error { return p.web.Serve(gateway.Lasting(l)) })
	}
	for _, c := range outside.http3 {
		start("http/3", func() error { return p.web.ServeHTTP3(c) })
	}
	for _, l := range outside.http {
		start("http", func() error { return p.web.ServeRedirect(gateway.Lasting(l)) })
	}
	start("public certificates", func() error { return p.web.RunACME(ctx) })
	outside.responder.serve(p.responder, start)
	for _, l := range outside.smtp {
		start("smtp", func() error { return p.mail.ServeSMTP(gateway.Lasting(l)) })
	}
	for _, l := range outside.imaps {
		start("imaps", func() error { return p.mail.ServeIMAPS(gateway.Lasting(l)) })
	}
	p.serveGuests(start)
	start("host's s3", func() error { return p.hostS3.Serve(gateway.Lasting(outside.s3)) })
	start("host's ssh agent", func() error { return p.host.Agent().Serve(outside.ssh) })
	start("control", func() error { return p.control.Serve(gateway.Lasting(outside.control)) })
	group.Go(func() error {
		<-ctx.Done()
		defer stopEngine()
		return stop(ctx, p, outside, log)
	})
	log.Info("daemon ready", "addr", outside.String())
	notify(daemon.SdNotifyReady)
	return group.Wait()
}

// serveGuests starts the services on taps.
func (p *parts) serveGuests(start func(name string, run func() error)) {
	start("guests' http", func() error { return p.guestHTTP.Serve(p.taps.http) })
	start("guests' https", func() error { return p.web.Serve(p.taps.https) })
	start("guests' imap", func() error { return p.mail.ServeIMAP(p.taps.imap) })
	start("guests' smtp", func() error { return p.mail.ServeSubmission(p.taps.smtp) })
	start("guests' submission", func() error { return p.mail.ServeSubmission(p.taps.submission) })
	start("guests' dns", func() error { return p.dns.ServeTCP(p.taps.dns) })
}

// version returns the version that the build recorded.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// stop shuts all parts down, after the end of ctx.
func stop(ctx context.Context, p *parts, outside *hostListeners, log *slog.Logger) error {
	log.Info("daemon stopping")
	if !errors.Is(context.Cause(ctx), errUpgrade) {
		notify(daemon.SdNotifyStopping)
	}
	return errors.Join(outside.responder.close(), p.shutdown(log))
}
