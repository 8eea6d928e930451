package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"lodge/gateway"
)

// The parts of a Maildir, relative to the login user's home, where SFTP starts.
const (
	maildir = "Maildir"
	tmpDir  = maildir + "/tmp"
	newDir  = maildir + "/new"
	curDir  = maildir + "/cur"
)

// maxAnswerBytes is what a guest may send for one message: room for the listing of some 500,000
// files in cur.
const maxAnswerBytes = 128 << 20

// guest is an SFTP connection into a VM. The guest is not trusted: every step has a time limit that
// cuts the connection, and what it may send has a size limit.
type guest struct {
	raw    net.Conn
	ssh    *ssh.Client
	sftp   *sftp.Client
	answer *meter
	step   time.Duration
	tried  bool // a first message went over this connection; later ones cannot be there yet
}

// connect logs in and makes the Maildir if there is none.
func connect(ctx context.Context, config Config, m gateway.VM) (*guest, error) {
	ctx, cancel := context.WithTimeout(ctx, config.Times.Connect)
	defer cancel()
	auth, err := config.clientConfig(m)
	if err != nil {
		return nil, at(stageConnect, err)
	}
	raw, err := config.Dial(ctx, m)
	if err != nil {
		return nil, at(stageConnect, fmt.Errorf("dial: %w", err))
	}
	g := &guest{raw: raw, step: config.Times.Step}
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	if err := g.login(m.Addr.String(), auth); err != nil {
		g.close()
		return nil, at(stageConnect, err)
	}
	if err := g.within(ctx, g.makeMaildir); err != nil {
		g.close()
		return nil, at(stageMaildir, err)
	}
	return g, nil
}

func (g *guest) login(addr string, auth *ssh.ClientConfig) error {
	conn, channels, requests, err := ssh.NewClientConn(g.raw, addr, auth)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	g.ssh = ssh.NewClient(conn, channels, requests)
	session, err := g.ssh.NewSession()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	in, err1 := session.StdinPipe()
	out, err2 := session.StdoutPipe()
	if err := errors.Join(err1, err2, session.RequestSubsystem("sftp")); err != nil {
		return fmt.Errorf("start sftp: %w", err)
	}
	g.answer = &meter{r: out}
	g.answer.left.Store(maxAnswerBytes)
	g.sftp, err = sftp.NewClientPipe(g.answer, in)
	if err != nil {
		return fmt.Errorf("start sftp: %w", err)
	}
	for _, name := range []string{"fsync@openssh.com", "hardlink@openssh.com"} {
		if _, ok := g.sftp.HasExtension(name); !ok {
			return fmt.Errorf("start sftp: the server cannot do %s", name)
		}
	}
	return nil
}

// makeMaildir makes what is missing, for the user's eyes only.
func (g *guest) makeMaildir() error {
	for _, dir := range []string{maildir, tmpDir, newDir, curDir} {
		info, err := g.sftp.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			continue
		case err == nil:
			return fmt.Errorf("~/%s is not a directory", dir)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look at ~/%s: %w", dir, err)
		}
		if err := g.sftp.Mkdir(dir); err != nil {
			return fmt.Errorf("make ~/%s: %w", dir, err)
		}
		if err := g.sftp.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("protect ~/%s: %w", dir, err)
		}
	}
	return nil
}

// deliver puts one message into new, unless it is in new or cur already. It returns once the copy
// is synced.
func (g *guest) deliver(ctx context.Context, name string, content io.Reader, size int64) error {
	g.answer.left.Store(maxAnswerBytes)
	if !g.tried {
		there, err := g.there(ctx, name)
		if there || err != nil {
			return at(stageMaildir, err)
		}
		g.tried = true
	}
	if err := g.write(ctx, tmpDir+"/"+name, content, size); err != nil {
		return at(stageWrite, err)
	}
	err := g.within(ctx, func() error {
		if err := g.link(name); err != nil {
			return err
		}
		if err := g.sftp.Remove(tmpDir + "/" + name); err != nil {
			return fmt.Errorf("unlink from tmp: %w", err)
		}
		return g.syncDir(newDir)
	})
	return at(stageMaildir, err)
}

// there reports whether an earlier attempt got as far as the link. Then it ends what that attempt
// has not: the name in tmp goes, and new is synced.
func (g *guest) there(ctx context.Context, name string) (there bool, err error) {
	err = g.within(ctx, func() error {
		if there, err = g.find(name); !there || err != nil {
			return err
		}
		if err := g.sftp.Remove(tmpDir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unlink from tmp: %w", err)
		}
		return g.syncDir(newDir)
	})
	return there, err
}

// find looks for a message as it was named, and as a mail reader has moved it on.
func (g *guest) find(name string) (bool, error) {
	_, err := g.sftp.Lstat(newDir + "/" + name)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look into ~/%s: %w", newDir, err)
	}
	seen, err := g.sftp.ReadDir(curDir)
	if err != nil {
		return false, fmt.Errorf("look into ~/%s: %w", curDir, err)
	}
	return slices.ContainsFunc(seen, func(f fs.FileInfo) bool {
		base, _, _ := strings.Cut(f.Name(), ":")
		return base == name
	}), nil
}

// write makes the file in tmp, over what an earlier attempt may have left, and syncs it.
func (g *guest) write(ctx context.Context, path string, content io.Reader, size int64) error {
	var f *sftp.File
	err := g.within(ctx, func() (err error) {
		if f, err = g.sftp.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC); err != nil {
			return fmt.Errorf("make ~/%s: %w", path, err)
		}
		return f.Chmod(0o600)
	})
	if err != nil {
		return err
	}
	timer := time.AfterFunc(g.step, g.cut)
	defer timer.Stop()
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	n, err := io.Copy(onlyWriter{f}, &ticking{content, timer, g.step})
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	timer.Reset(g.step)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = g.sftp.Remove(path) // a full disk in the guest must not stay full of our leftovers; within the timer
		return fmt.Errorf("write ~/%s: %w", path, err)
	}
	return nil
}

// link gives the message its place in new. OpenSSH does not say EEXIST, so a failure asks whether
// it is there.
func (g *guest) link(name string) error {
	err := g.sftp.Link(tmpDir+"/"+name, newDir+"/"+name)
	if err == nil {
		return nil
	}
	if _, missing := g.sftp.Lstat(newDir + "/" + name); missing == nil {
		return nil
	}
	return fmt.Errorf("link into ~/%s: %w", newDir, err)
}

// syncDir syncs a directory: OpenSSH opens one for reading like a file, and then syncs it.
func (g *guest) syncDir(dir string) error {
	d, err := g.sftp.Open(dir)
	if err != nil {
		return fmt.Errorf("open ~/%s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync ~/%s: %w", dir, err)
	}
	return nil
}

// within runs a few requests; when they take longer than a step, or ctx ends, the connection is
// cut.
func (g *guest) within(ctx context.Context, f func() error) error {
	timer := time.AfterFunc(g.step, g.cut)
	defer timer.Stop()
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	return f()
}

func (g *guest) cut() { _ = g.raw.Close() } // whoever waits on the connection gets the error

// close ends the connection, hard: nothing is under way that would need an answer.
func (g *guest) close() {
	g.cut()
	if g.sftp != nil {
		_ = g.sftp.Close() // after cut it only collects goroutines
	}
	if g.ssh != nil {
		_ = g.ssh.Close() // as above
	}
}

// onlyWriter hides ReadFrom, which would write from goroutines of pkg/sftp's own: there a guest's
// malformed answer panics where nobody can recover, and ends the daemon. Here it panics in attempt.
type onlyWriter struct{ io.Writer }

// ticking puts a timer back at every read: progress.
type ticking struct {
	io.Reader
	timer *time.Timer
	step  time.Duration
}

func (t *ticking) Read(p []byte) (int, error) {
	t.timer.Reset(t.step)
	return t.Reader.Read(p) // io.EOF must stay itself
}

var errTalkative = errors.New("the guest sends too much")

// meter fails once more was read than is left.
type meter struct {
	r    io.Reader
	left atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.left.Add(-int64(n)) < 0 {
		return n, errTalkative
	}
	return n, err // io.EOF must stay itself
}
