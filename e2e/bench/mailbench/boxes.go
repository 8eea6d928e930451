package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lodge/mail/mailbox"
)

const watchers = 39 // of the 40 connections that a VM may have

// fill puts n small messages into the mailbox of each VM; they are in the guest already, or wait.
func (l *lodged) fill(n int, waiting bool, names ...string) error {
	boxes, err := mailbox.Open(filepath.Join(l.dir, "mail"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer boxes.Close()
	const trace = "Return-Path: <a@sender.example>\r\nFrom: Ann <a@sender.example>\r\nSubject: one of many\r\nDate: Sun, 29 Nov 2026 12:00:00 +0000\r\n"
	for _, name := range names {
		for left := n; left > 0; {
			staged, err := boxes.Stage()
			if err != nil {
				return err
			}
			if _, err := staged.Write([]byte("\r\nhello\r\n")); err != nil {
				return err
			}
			letters := make([]mailbox.Letter, min(left, 5000))
			for i := range letters {
				letters[i] = mailbox.Letter{VM: idOf(name), QueueID: mailbox.NewQueueID(time.Now()), From: "a@sender.example", Rcpt: "x@" + name + "." + domain, Subject: "one of many", Head: trace}
			}
			if err := boxes.Commit(staged, letters); err != nil {
				return err
			}
			staged.Remove()
			left -= len(letters)
		}
		if waiting {
			continue
		}
		box, err := boxes.Box(idOf(name))
		if err != nil {
			return err
		}
		if err := box.Delivered(uint32(n)); err != nil { //nolint:gosec // a million
			return err
		}
	}
	return nil
}

// reader is a client of IMAP.
type reader struct {
	net.Conn
	r *bufio.Reader
}

func readMail(ctx context.Context, addr string) (*reader, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &reader{c, bufio.NewReader(c)}
	return r, r.until("* PREAUTH")
}

// until reads lines until one begins with text.
func (r *reader) until(text string) error {
	for {
		got, err := r.r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("wait for %q: %w", text, err)
		}
		if strings.HasPrefix(got, text) {
			return nil
		}
		if strings.HasPrefix(got, "a NO") || strings.HasPrefix(got, "a BAD") {
			return fmt.Errorf("wait for %q: got %q", text, got)
		}
	}
}

// ask sends a command, waits for its end, and returns how long that took.
func (r *reader) ask(command, end string) (time.Duration, error) {
	begun := time.Now()
	if _, err := r.Write([]byte("a " + command + "\r\n")); err != nil {
		return 0, err
	}
	err := r.until(end)
	return time.Since(begun), err
}

// watch makes clients that wait for mail with IDLE, and read what comes. stop ends them.
func watch(ctx context.Context, addr string, n int) (stop func(), err error) {
	var readers []*reader
	var reading sync.WaitGroup
	stop = func() {
		for _, r := range readers {
			_ = r.Close() // the server ends the session
		}
		reading.Wait()
	}
	for range n {
		r, err := readMail(ctx, addr)
		if err == nil {
			_, err = r.ask("SELECT INBOX", "a OK")
		}
		if err == nil {
			_, err = r.ask("IDLE", "+")
		}
		if err != nil {
			stop()
			return nil, err
		}
		readers = append(readers, r)
		reading.Go(func() { _ = r.until("never") }) // until stop
	}
	return stop, nil
}

// idle is what clients that wait cost those that send to the same large mailbox.
func idle(ctx context.Context, b *bench) error {
	l, err := b.prepare(ctx, "", "vm0")
	if err != nil {
		return err
	}
	if err := l.fill(b.crowded, false, "vm0"); err != nil {
		return err
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.stop()
	var alone, watched []sample
	for range b.rounds {
		s, err := round(l.smtp, l.pid(), b.small, letter(4<<10), vms(1), anywhere, nothing)
		if err != nil {
			return err
		}
		alone = append(alone, s)
		stop, err := watch(ctx, l.imap, watchers)
		if err != nil {
			return err
		}
		s, err = round(l.smtp, l.pid(), b.small, letter(4<<10), vms(1), anywhere, nothing)
		stop()
		if err != nil {
			return err
		}
		watched = append(watched, s)
	}
	x, y := median(alone), median(watched)
	line(fmt.Sprintf("%d IDLE clients on %d messages", watchers, b.crowded),
		fmt.Sprintf("%.0f → %.0f /s = -%.0f %%; %.3f → %.3f ms", x.perSecond, y.perSecond, 100*(1-y.perSecond/x.perSecond), ms(x.cpu), ms(y.cpu)), "< 10 %")
	return nil
}

// push is the time from the 250 of a message until a client in IDLE sees it.
func push(ctx context.Context, b *bench) error {
	l, err := b.prepare(ctx, "", "vm0")
	if err != nil {
		return err
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.stop()
	r, err := readMail(ctx, l.imap)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // the server ends the session
	if _, err := r.ask("SELECT INBOX", "a OK"); err != nil {
		return err
	}
	if _, err := r.ask("IDLE", "+"); err != nil {
		return err
	}
	seen := make(chan time.Time, b.pushes)
	go func() {
		for range b.pushes {
			if r.until("* ") != nil {
				close(seen)
				return
			}
			seen <- time.Now()
		}
	}()
	took, err := b.delays(ctx, l, seen, b.pushes)
	if err != nil {
		return err
	}
	line("250 → IDLE push", percentiles(took), "< 5 ms")
	return nil
}

// delays sends n messages, one after the other, and returns how long after its 250 each was seen.
func (b *bench) delays(ctx context.Context, l *lodged, seen <-chan time.Time, n int) ([]time.Duration, error) {
	s, err := dial(ctx, l.smtp, "")
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // the server ends the session
	var took []time.Duration
	for range n {
		if err := s.send("vm0", letter(4<<10)); err != nil {
			return nil, err
		}
		accepted := time.Now()
		select {
		case at, ok := <-seen:
			if !ok {
				return nil, fmt.Errorf("after %d messages the connection ended", len(took))
			}
			took = append(took, max(0, at.Sub(accepted)))
		case <-time.After(time.Minute):
			return nil, fmt.Errorf("message %d was not seen", len(took)+1)
		}
	}
	return took, nil
}

func percentiles(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", ms(all[len(all)/2]), ms(all[len(all)*99/100]))
}

// start is a start with 50 mailboxes: until the port is open, until the first message is safe, and the memory
// then.
func start(ctx context.Context, b *bench) error {
	names := vms(50)
	l, err := b.prepare(ctx, "", names...)
	if err != nil {
		return err
	}
	if err := l.fill(b.perVM, false, names...); err != nil {
		return err
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.stop()
	open := time.Since(l.begun)
	s, err := dial(ctx, l.smtp, "")
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // the server ends the session
	if err := s.send("vm7", letter(1<<10)); err != nil {
		return err
	}
	first := time.Since(l.begun)
	memory, err := rss(l.pid())
	if err != nil {
		return err
	}
	name := fmt.Sprintf("50 × %d: port open, first 250, RSS", b.perVM)
	line(name, fmt.Sprintf("%.0f ms, %.0f ms, %.0f MiB", ms(open), ms(first), memory), "< 500 ms, < 80 MiB")
	return nil
}

// million opens a very large mailbox.
func million(ctx context.Context, b *bench) error {
	l, err := b.prepare(ctx, "", "vm0")
	if err != nil {
		return err
	}
	if err := l.fill(b.million, false, "vm0"); err != nil {
		return err
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.stop()
	begun := time.Now()
	r, err := readMail(ctx, l.imap)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // the server ends the session
	if _, err := r.ask("STATUS INBOX (MESSAGES)", "a OK"); err != nil {
		return err
	}
	opened := time.Since(begun)
	selected, err := r.ask("SELECT INBOX", "a OK")
	if err != nil {
		return err
	}
	page, err := r.ask(fmt.Sprintf("FETCH %d:* (UID FLAGS ENVELOPE RFC822.SIZE)", b.million-49), "a OK")
	if err != nil {
		return err
	}
	memory, err := rss(l.pid())
	if err != nil {
		return err
	}
	line(fmt.Sprintf("box of %d: open, SELECT, RSS", b.million), fmt.Sprintf("%.0f ms, %.0f ms, %.0f MiB", ms(opened), ms(selected), memory), "< 100 ms")
	line("its newest page of 50", fmt.Sprintf("%.1f ms", ms(page)), "< 20 ms")
	return nil
}
