package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const sessions = 16

// session is one connection of a sender.
type session struct {
	net.Conn
	r *bufio.Reader
}

// dial connects from an address, or from any if it is empty, and sends EHLO.
func dial(ctx context.Context, addr, source string) (*session, error) {
	var d net.Dialer
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &session{c, bufio.NewReader(c)}
	if err := s.replies(1); err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte("EHLO sender.example\r\n")); err != nil {
		return nil, err
	}
	return s, s.replies(1)
}

// replies reads replies, all of which must be positive.
func (s *session) replies(n int) error {
	for n > 0 {
		text, err := s.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(text) < 4 || text[0] > '3' {
			return fmt.Errorf("the server replied %q", text)
		}
		if text[3] == ' ' {
			n--
		}
	}
	return nil
}

// send sends a message to a VM. It returns once the server has it.
func (s *session) send(vm string, body []byte) error {
	const envelope = "MAIL FROM:<a@sender.example>\r\nRCPT TO:<x@%s." + domain + ">\r\nDATA\r\n"
	if _, err := fmt.Fprintf(s, envelope, vm); err != nil {
		return err
	}
	if err := s.replies(3); err != nil {
		return err
	}
	if _, err := s.Write(body); err != nil {
		return err
	}
	return s.replies(1)
}

// letter is a message of a size, with the dot that ends it.
func letter(size int) []byte {
	return []byte("From: <a@sender.example>\r\nSubject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78) + ".\r\n")
}

// crowd is senders that are connected.
type crowd []*session

// gather connects all senders; source returns the address of each.
func gather(ctx context.Context, addr string, source func(i int) string) (crowd, error) {
	all := make(crowd, sessions)
	for i := range all {
		var err error
		if all[i], err = dial(ctx, addr, source(i)); err != nil {
			all.leave()
			return nil, err
		}
	}
	return all, nil
}

func anywhere(int) string { return "" }

func (all crowd) leave() {
	for _, s := range all {
		if s != nil {
			_ = s.Close() // the server ends the session
		}
	}
}

// send sends n messages, each sender to a VM of its own out of vms. It returns how long that took.
func (all crowd) send(n int, body []byte, vms []string) (time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(n))
	failed := make([]error, len(all))
	begun := time.Now()
	var senders sync.WaitGroup
	for i, s := range all {
		senders.Go(func() {
			for failed[i] == nil && left.Add(-1) >= 0 {
				failed[i] = s.send(vms[i%len(vms)], body)
			}
		})
	}
	senders.Wait()
	for _, err := range failed {
		if err != nil {
			return 0, err
		}
	}
	return time.Since(begun), nil
}
