package deliver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A guest that is made to hurt costs one failed attempt in bounded time and memory, never a hang or
// a panic that escapes.
func TestHostileGuests(t *testing.T) {
	for name, behave := range map[string]func(net.Conn, *ssh.ServerConfig){
		"sends nothing":    func(net.Conn, *ssh.ServerConfig) {},
		"endless banner":   func(c net.Conn, _ *ssh.ServerConfig) { pour(c, []byte(strings.Repeat("x", 200)+"\r\n")) },
		"one endless line": func(c net.Conn, _ *ssh.ServerConfig) { pour(c, bytes.Repeat([]byte("x"), 4096)) },
		"garbage after SSH": func(c net.Conn, _ *ssh.ServerConfig) {
			c.Write([]byte("SSH-2.0-x\r\n"))
			pour(c, []byte{0xff, 0xfe, 0x00})
		},
		"silent SFTP":         sftpServer(func(ssh.Channel) {}),
		"garbage SFTP":        sftpServer(func(c ssh.Channel) { pour(c, []byte{0xff, 0xff, 0xff, 0xff, 7}) }),
		"SFTP without fsync":  sftpServer(func(c ssh.Channel) { c.Write(version()) }),
		"short answers":       sftpServer(answer(func(id uint32) []byte { return packet(101, id, nil) })),
		"other type":          sftpServer(answer(func(id uint32) []byte { return packet(200, id, []byte("zzzz")) })),
		"half an attribute":   sftpServer(answer(func(id uint32) []byte { return packet(105, id, []byte{0, 0, 0, 15}) })),
		"endless directory":   sftpServer(endlessDirectory(t)),
		"answers to no one":   sftpServer(answer(func(uint32) []byte { return packet(101, 4_000_000, nil) })),
		"closes at once":      func(c net.Conn, _ *ssh.ServerConfig) { c.Close() },
		"never ending handle": sftpServer(answer(func(id uint32) []byte { return packet(102, id, append([]byte{0, 3, 0, 0}, make([]byte, 3<<16)...)) })),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := hostileWorker(t, behave)
			m, _ := w.config.Directory.ByID(w.id)
			done := make(chan error, 1)
			go func() { done <- attemptOnce(t.Context(), w, m, true) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("delivered")
				}
			case <-time.After(20 * time.Second):
				t.Error("hangs")
			}
		})
	}
}

// attemptOnce is one delivery with the recovery of worker.attempt around it.
func attemptOnce(ctx context.Context, w *worker, m gateway.VM, again bool) (err error) {
	defer w.disconnect()
	return w.guarded(func() (err error) {
		if w.route, err = openSFTP(ctx, w.config, m); err != nil {
			w.route = nil
			return err
		}
		return w.route.Deliver(ctx, Message{QueueID: "queueid", Bytes: 5, Again: again, Content: strings.NewReader("hello")})
	})
}

// hostileWorker is a worker whose guest runs behave.
func hostileWorker(t *testing.T, behave func(net.Conn, *ssh.ServerConfig)) *worker {
	t.Helper()
	signer, public := key(t)
	server := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	server.AddHostKey(signer)
	directory := gatewaytest.NewDirectory(t, new(gatewaytest.Records))
	m, err := directory.Create(t.Context(), gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: "hello"}, Desired: gateway.Running, HostKey: public,
	})
	gatewaytest.Must(t, err)
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	return &worker{id: m.ID, delivered: new(atomic.Uint64), logger: slog.New(slog.DiscardHandler), config: Config{
		Domain: "lodge.test", Directory: directory, KeyFile: hostKeyFile(t), Logger: slog.New(slog.DiscardHandler),
		Times: Times{Connect: 2 * time.Second, Step: 2 * time.Second, Verdict: 2 * time.Second},
		Dial: func(ctx context.Context, _ gateway.VM, _ uint16) (net.Conn, error) {
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			defer l.Close()
			client, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			if err != nil {
				return nil, err
			}
			far, err := l.Accept()
			if err != nil {
				return nil, err
			}
			gatewaytest.Must(t, errors.Join(client.(*net.TCPConn).SetWriteBuffer(4096), far.(*net.TCPConn).SetReadBuffer(4096)))
			all.Go(func() { behave(far, server) })
			context.AfterFunc(t.Context(), func() { far.Close() })
			return client, nil
		},
	}}
}

// sftpServer is an SSH server that takes anybody and lets serve answer on the sftp channel.
func sftpServer(serve func(ssh.Channel)) func(net.Conn, *ssh.ServerConfig) {
	return func(c net.Conn, config *ssh.ServerConfig) {
		conn, channels, requests, err := ssh.NewServerConn(c, config)
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests)
		for opened := range channels {
			channel, requests, err := opened.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range requests {
					_ = r.Reply(true, nil)
				}
			}()
			serve(channel)
		}
	}
}

func pour(w io.Writer, what []byte) {
	for {
		if _, err := w.Write(what); err != nil {
			return
		}
	}
}

// version is an SFTP greeting with the named extensions.
func version(extensions ...string) []byte {
	body := []byte{2, 0, 0, 0, 3}
	for _, text := range extensions {
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(text))), text...)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func packet(kind byte, id uint32, rest []byte) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(5+len(rest)))
	p = binary.BigEndian.AppendUint32(append(p, kind), id)
	return append(p, rest...)
}

// answer greets properly and then answers every request with the same.
func answer(with func(id uint32) []byte) func(ssh.Channel) {
	return requests(func(_ byte, id uint32) []byte { return with(id) })
}

func requests(with func(kind byte, id uint32) []byte) func(ssh.Channel) {
	return func(c ssh.Channel) {
		c.Write(version("fsync@openssh.com", "1", "hardlink@openssh.com", "1"))
		first := true
		for {
			var length uint32
			if binary.Read(c, binary.BigEndian, &length) != nil || length > 1<<20 {
				return
			}
			body := make([]byte, length)
			if _, err := io.ReadFull(c, body); err != nil {
				return
			}
			if first {
				first = false
				continue
			}
			if _, err := c.Write(with(body[0], binary.BigEndian.Uint32(body[1:]))); err != nil {
				return
			}
		}
	}
}

// endlessDirectory has a good Maildir whose directories never end; none is ever listed.
func endlessDirectory(t *testing.T) func(ssh.Channel) {
	t.Helper()
	directory := []byte{0, 0, 0, 4, 0, 0, 0x41, 0xc0} // permissions: a directory
	names := binary.BigEndian.AppendUint32(nil, 100)  // of 2,000 bytes each
	for range 100 {
		for range 2 {
			names = binary.BigEndian.AppendUint32(names, 1000)
			names = append(names, bytes.Repeat([]byte("n"), 1000)...)
		}
		names = append(names, 0, 0, 0, 0)
	}
	return requests(func(kind byte, id uint32) []byte {
		switch kind {
		case 17: // stat
			return packet(105, id, directory)
		case 7: // lstat: no such file
			return packet(101, id, []byte{0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0})
		case 11: // opendir
			t.Error("a directory is listed")
			return packet(102, id, []byte{0, 0, 0, 1, 'h'})
		default:
			return packet(104, id, names)
		}
	})
}

func key(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	gatewaytest.Must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	gatewaytest.Must(t, err)
	return signer, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

func hostKeyFile(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	gatewaytest.Must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	gatewaytest.Must(t, err)
	path := filepath.Join(t.TempDir(), "key")
	gatewaytest.Must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	return path
}
