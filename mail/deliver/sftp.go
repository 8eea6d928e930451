package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"lodge/gateway"
	"lodge/gateway/relay"
)

// The parts of a Maildir, relative to the login user's home, where SFTP starts.
const (
	maildir = "Maildir"
	tmpDir  = maildir + "/tmp"
	newDir  = maildir + "/new"
	curDir  = maildir + "/cur"
)

const sshPort = 22

// maxAnswerBytes is how much a guest may send for a message. The answers to one of 1 GiB fit.
const maxAnswerBytes = 8 << 20

// sftpRoute is a Route into a VM's Maildir. The guest is not trusted: every step has a timeout that
// closes the connection, and its answers have a size limit.
type sftpRoute struct {
	raw  net.Conn
	ssh  *ssh.Client
	step time.Duration

	relax time.Duration // the longest for which one lane is used after another one hung
	bound *laneBound    // of the worker; nil: none

	mu    sync.Mutex
	lanes []*lane // at least one once it is open
	full  bool    // the guest opens no further one
}

// openSFTP logs in and creates a missing Maildir.
func openSFTP(ctx context.Context, config Config, m gateway.VM) (Route, error) {
	ctx, cancel := context.WithTimeout(ctx, config.Times.Connect)
	defer cancel()
	auth, err := relay.SSHConfig(gateway.GuestUser, config.KeyFile, m.HostKey)
	if err != nil {
		return nil, at(stageConnect, err)
	}
	raw, err := config.Dial(ctx, m, sshPort)
	if err != nil {
		return nil, at(stageConnect, fmt.Errorf("dial: %w", err))
	}
	g := &sftpRoute{raw: raw, step: config.Times.Step, relax: config.Times.ParkedMax}
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	if err := g.login(m.Addr.String(), auth); err != nil {
		g.Close()
		return nil, at(stageConnect, err)
	}
	if err := g.within(ctx, g.lanes[0], g.lanes[0].makeMaildir); err != nil {
		g.Close()
		return nil, at(stageMaildir, err)
	}
	return g, nil
}

// bind implements bounded.
func (g *sftpRoute) bind(b *laneBound) { g.bound = b }

func (g *sftpRoute) login(addr string, auth *ssh.ClientConfig) error {
	conn, channels, requests, err := ssh.NewClientConn(g.raw, addr, auth)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	g.ssh = ssh.NewClient(conn, channels, requests)
	first, err := openLane(g.ssh)
	if err != nil {
		return err
	}
	first.first = true
	g.lanes = []*lane{first}
	return nil
}

// makeMaildir creates missing directories, with mode 0700.
func (l *lane) makeMaildir() error {
	for _, dir := range []string{maildir, tmpDir, newDir, curDir} {
		info, err := l.client.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			continue
		case err == nil:
			return fmt.Errorf("~/%s is not a directory", dir)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look at ~/%s: %w", dir, err)
		}
		if err := l.client.Mkdir(dir); err != nil {
			return fmt.Errorf("make ~/%s: %w", dir, err)
		}
		if err := l.client.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("protect ~/%s: %w", dir, err)
		}
	}
	return nil
}

// Deliver writes one message into new, unless an earlier attempt did. It returns once the copy is synced, and
// Settle syncs its name. The file in tmp stays as a mark, until the host's record has the message as delivered: a
// mail reader may move the one in new to cur, or remove it, before a crash makes Deliver come again.
func (g *sftpRoute) Deliver(ctx context.Context, m Message) error {
	l := g.take(ctx)
	defer g.give(l)
	l.answer.left.Store(maxAnswerBytes)
	there := false
	if m.Again {
		err := g.within(ctx, l, func() (err error) {
			there, err = l.find(m.QueueID)
			return err
		})
		if err != nil {
			return at(stageMaildir, err)
		}
	}
	if !there {
		if err := g.write(ctx, l, tmpDir+"/"+m.QueueID, m.Content, m.Bytes); err != nil {
			return at(stageWrite, err)
		}
	}
	return at(stageMaildir, g.within(ctx, l, func() error {
		if !there {
			if err := l.link(m.QueueID); err != nil {
				return err
			}
		}
		return l.mark(m.QueueID)
	}))
}

// Settle syncs new, once for all that was linked there: a sync per message halves how many an sshd takes, which does
// one at a time. What fails here has its mark, so that the next attempt makes no second copy.
func (g *sftpRoute) Settle(ctx context.Context) error {
	return at(stageMaildir, g.within(ctx, g.lanes[0], func() error { return g.lanes[0].syncDir(newDir) }))
}

// done is the name in tmp of a message that was linked into new.
func done(name string) string { return tmpDir + "/" + name + ".done" }

// mark renames a message's file in tmp, which find takes as proof that it was linked. Where a crash
// left both names, or a file of new alone, nothing is to be renamed.
func (l *lane) mark(name string) error {
	file := tmpDir + "/" + name
	err := l.client.Rename(file, done(name))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if both, _ := l.exists(done(name)); both {
		err = l.client.Remove(file)
	}
	if err != nil {
		return fmt.Errorf("rename ~/%s: %w", file, err)
	}
	return nil
}

// Recorded removes a mark.
func (g *sftpRoute) Recorded(ctx context.Context, name string) error {
	l := g.join() // after a reconnect there are many of these, and mostly nothing to remove
	defer g.give(l)
	return g.within(ctx, l, func() error {
		if err := l.client.Remove(done(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unlink ~/%s: %w", done(name), err)
		}
		return nil
	})
}

// find reports whether an earlier attempt has linked the message into new. Only a crash between link
// and mark leaves that open, if a mail reader has moved the file to cur meanwhile: find looks there
// for all names by the Maildir's rules, without a listing, which has no bound. A second copy is made
// if the reader also gave the file a name of its own.
func (l *lane) find(name string) (bool, error) {
	for _, path := range []string{done(name), newDir + "/" + name} {
		if there, err := l.exists(path); there || err != nil {
			return there, err
		}
	}
	if begun, err := l.exists(tmpDir + "/" + name); !begun || err != nil {
		return false, err
	}
	for _, suffix := range curSuffixes() {
		if there, err := l.exists(curDir + "/" + name + suffix); there || err != nil {
			return there, err
		}
	}
	return false, nil
}

func (l *lane) exists(path string) (bool, error) {
	_, err := l.client.Lstat(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("look for ~/%s: %w", path, err)
	}
}

// curSuffixes are what a mail reader may add to a name in cur: no, or any, of the six flags, in the
// order of ASCII (https://cr.yp.to/proto/maildir.html).
func curSuffixes() []string {
	all := []string{":2,"}
	for _, flag := range "DFPRST" {
		for _, s := range all {
			all = append(all, s+string(flag))
		}
	}
	return append(all, "")
}

// write creates the file in tmp, replacing that of an earlier attempt, and syncs it.
func (g *sftpRoute) write(ctx context.Context, l *lane, path string, content io.Reader, size int64) error {
	var f *sftp.File
	err := g.within(ctx, l, func() (err error) {
		if f, err = l.client.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC); err != nil {
			return fmt.Errorf("make ~/%s: %w", path, err)
		}
		return f.Chmod(0o600)
	})
	if err != nil {
		return err
	}
	timer := time.AfterFunc(g.step, func() { g.hang(l) })
	defer timer.Stop()
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	n, err := io.Copy(onlyWriter{f}, &ticking{Reader: content, timer: timer, step: g.step})
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	timer.Reset(g.step)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = l.client.Remove(path) // leave nothing on a full disk; the timer still runs
		return fmt.Errorf("write ~/%s: %w", path, err)
	}
	return nil
}

// link links the message into new. OpenSSH does not report EEXIST, so after a failure link checks
// for the name.
func (l *lane) link(name string) error {
	err := l.client.Link(tmpDir+"/"+name, newDir+"/"+name)
	if err == nil {
		return nil
	}
	if _, missing := l.client.Lstat(newDir + "/" + name); missing == nil {
		return nil
	}
	return fmt.Errorf("link into ~/%s: %w", newDir, err)
}

// syncDir syncs a directory: OpenSSH opens one for reading like a file, and then syncs it.
func (l *lane) syncDir(dir string) error {
	d, err := l.client.Open(dir)
	if err != nil {
		return fmt.Errorf("open ~/%s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync ~/%s: %w", dir, err)
	}
	return nil
}

// within runs f, which uses a lane. It closes the connection when f takes longer than a step, or when ctx ends.
func (g *sftpRoute) within(ctx context.Context, l *lane, f func() error) error {
	timer := time.AfterFunc(g.step, func() { g.hang(l) })
	defer timer.Stop()
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	return f()
}

func (g *sftpRoute) cut() { _ = g.raw.Close() } // requests in progress fail

// Close closes the connection without waiting for answers.
func (g *sftpRoute) Close() {
	g.cut()
	for _, l := range g.lanes {
		_ = l.client.Close() // after cut it only ends goroutines
	}
	if g.ssh != nil {
		_ = g.ssh.Close() // as above
	}
}

// onlyWriter hides ReadFrom, which writes from goroutines of pkg/sftp. A malformed answer of a
// guest would panic there, where nothing recovers, and end the daemon. Here it panics in attempt.
type onlyWriter struct{ io.Writer }
