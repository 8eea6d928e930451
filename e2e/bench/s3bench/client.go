package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// signer makes requests with a signature of version 4. It is for one goroutine, and keeps the key of the day: its
// share of the host's processors is small beside a server's.
type signer struct {
	access, scope, date string
	mac                 hash.Hash
}

func newSigner(access, secret string) *signer {
	now := time.Now().UTC()
	day := now.Format("20060102")
	key := []byte("AWS4" + secret)
	for _, part := range []string{day, "us-east-1", "s3", "aws4_request"} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return &signer{access, day + "/us-east-1/s3/aws4_request", now.Format("20060102T150405Z"), hmac.New(sha256.New, key)}
}

const signedHeaders = "host;x-amz-content-sha256;x-amz-date"

// body is what requests send, with its hash.
type body struct {
	bytes []byte
	hash  string
}

func newBody(text []byte) body {
	sum := sha256.Sum256(text)
	return body{text, hex.EncodeToString(sum[:])}
}

// request appends the head of a request to b. Path and query are as they are signed.
func (s *server) request(b []byte, method, path, query string, content body, headers string) []byte {
	target := path
	if query != "" {
		target += "?" + query
	}
	b = append(b, method+" "+target+" HTTP/1.1\r\nHost: "+s.addr+"\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(content.bytes)), 10)
	b = append(b, "\r\n"+headers...)
	if k := s.keys; k != nil {
		canonical := method + "\n" + path + "\n" + query + "\nhost:" + s.addr + "\nx-amz-content-sha256:" + content.hash +
			"\nx-amz-date:" + k.date + "\n\n" + signedHeaders + "\n" + content.hash
		sum := sha256.Sum256([]byte(canonical))
		k.mac.Reset()
		k.mac.Write([]byte("AWS4-HMAC-SHA256\n" + k.date + "\n" + k.scope + "\n" + hex.EncodeToString(sum[:])))
		b = append(b, "X-Amz-Date: "+k.date+"\r\nX-Amz-Content-Sha256: "+content.hash+"\r\nAuthorization: AWS4-HMAC-SHA256 Credential="+
			k.access+"/"+k.scope+", SignedHeaders="+signedHeaders+", Signature="+hex.EncodeToString(k.mac.Sum(nil))+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

// client is one connection, which stays open.
type client struct {
	server
	conn net.Conn
	r    *bufio.Reader
	head []byte
}

// dial returns a client with a signer of its own.
func (s *server) dial(ctx context.Context) (*client, error) {
	c := &client{server: *s}
	if s.keys != nil {
		copied := *s.keys
		mac, err := copied.mac.(hash.Cloner).Clone()
		if err != nil {
			return nil, err
		}
		copied.mac, c.keys = mac, &copied
	}
	var err error
	if c.conn, err = new(net.Dialer).DialContext(ctx, "tcp", s.addr); err != nil {
		return nil, err
	}
	c.r = bufio.NewReaderSize(c.conn, 64<<10)
	return c, nil
}

func (c *client) close() { _ = c.conn.Close() } // the server ends its side

// do sends a request, and reads the answer, of which to gets the body.
func (c *client) do(method, path, query string, content body, headers string, to io.Writer) error {
	c.head = c.request(c.head[:0], method, path, query, content, headers)
	if _, err := (&net.Buffers{c.head, content.bytes}).WriteTo(c.conn); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return fmt.Errorf("%s: %s %s: %w", c.name, method, path, err)
	}
	defer res.Body.Close() //nolint:errcheck // it is read to its end, or the run fails
	if res.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 2000)) // more about the error
		return fmt.Errorf("%s: %s %s: %s: %s", c.name, method, path, res.Status, text)
	}
	n, err := io.Copy(to, res.Body)
	if err == nil && res.ContentLength >= 0 && n != res.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	return err
}
