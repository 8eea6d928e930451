package storage

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/sigv4"
)

func noVM() gateway.Identity { return gateway.Identity{} }

func staticCredentials(access, secret string) *credentials.Credentials {
	return credentials.NewStaticV4(access, secret, "")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// corruptReader changes one byte of a body.
type corruptReader struct {
	io.ReadCloser
	at, read int
}

func (c *corruptReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if i := c.at - c.read; i >= 0 && i < n {
		p[i] ^= 1
	}
	c.read += n
	return n, err
}

// TestIdentity asks who each way of calling is taken for.
func TestIdentity(t *testing.T) {
	h := newHost(t)
	a, b := h.guest("alice"), h.guest("bob")
	put(t, a.dummy(), "whose", "k", []byte("alice"))
	put(t, b.dummy(), "whose", "k", []byte("bob"))
	listener := h.listen(noVM())
	old := a.minted()
	if _, err := h.directory.Update(t.Context(), a.ID, func(m *gateway.VM) error { m.Incarnation++; return nil }); err != nil {
		t.Fatal(err)
	}
	expired, err := h.keyring.Issue(a.ID, time.Now().Add(-2*gateway.CredentialLife))
	if err != nil {
		t.Fatal(err)
	}
	keysA, keysB := a.minted(), b.minted()
	for name, c := range map[string]struct {
		url, access, secret string
		want                string // the content of k, or the error's code
	}{
		"tap, dummy key":             {a.url, "x", "y", "alice"},
		"other tap, dummy key":       {b.url, "x", "y", "bob"},
		"tap, own key":               {a.url, keysA.AccessKey, keysA.SecretKey, "alice"},
		"tap, own key, wrong secret": {a.url, keysA.AccessKey, "y", "SignatureDoesNotMatch"},
		"tap, the other's key":       {a.url, keysB.AccessKey, keysB.SecretKey, "InvalidAccessKeyId"},
		"tap, expired key":           {a.url, expired.AccessKey, expired.SecretKey, "ExpiredToken"},
		"tap, earlier incarnation":   {a.url, old.AccessKey, old.SecretKey, "ExpiredToken"},
		"tap, forged key":            {a.url, "LODGEAAAA", "y", "ExpiredToken"},
		"host, own key":              {listener, keysA.AccessKey, keysA.SecretKey, "alice"},
		"host, the other's key":      {listener, keysB.AccessKey, keysB.SecretKey, "bob"},
		"host, wrong secret":         {listener, keysA.AccessKey, keysB.SecretKey, "SignatureDoesNotMatch"},
		"host, dummy key":            {listener, "x", "y", "InvalidAccessKeyId"},
		"host, earlier incarnation":  {listener, old.AccessKey, old.SecretKey, "ExpiredToken"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := client(t, c.url, c.access, c.secret).GetObject(t.Context(), "whose", "k", getOptions())
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(o)
			if c.want == "alice" || c.want == "bob" {
				if err != nil || string(data) != c.want {
					t.Fatalf("got %q, %v", data, err)
				}
				return
			}
			wantCode(t, err, c.want, 403)
		})
	}
}

// TestForgedRequests are what someone sends through an app in the VM that fetches URLs, or through
// a proxy.
func TestForgedRequests(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	for name, c := range map[string]struct {
		method string
		path   string
		header map[string]string
		code   string
	}{
		"forwarded for": {"GET", "/box/k", map[string]string{"X-Forwarded-For": "1.2.3.4"}, "AccessDenied"},
		"forwarded":     {"GET", "/box/k", map[string]string{"Forwarded": "for=1.2.3.4"}, "AccessDenied"},
		"via":           {"GET", "/box/k", map[string]string{"Via": "1.1 proxy"}, "AccessDenied"},
		"basic":         {"GET", "/box/k", map[string]string{"Authorization": "Basic eDp5"}, "InvalidArgument"},
		"version 2":     {"GET", "/box/k", map[string]string{"Authorization": "AWS x:y"}, "InvalidRequest"},
		"nonsense":      {"GET", "/box/k", map[string]string{"Authorization": "AWS4-HMAC-SHA256 x"}, "AuthorizationHeaderMalformed"},
		"no date": {"GET", "/box/k", map[string]string{
			"Authorization": "AWS4-HMAC-SHA256 Credential=x/20261129/r/s3/aws4_request,SignedHeaders=host,Signature=" + strings.Repeat("0", 64), "X-Amz-Date": "today",
		}, "AccessDenied"},
		"PATCH":                {"PATCH", "/create-user", nil, "MethodNotAllowed"},
		"encryption":           {"PUT", "/box/e", map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}, "NotImplemented"},
		"customer's key":       {"PUT", "/box/e", map[string]string{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}, "InvalidArgument"},
		"append":               {"PUT", "/box/e", map[string]string{"X-Amz-Write-Offset-Bytes": "3"}, "NotImplemented"},
		"lock":                 {"PUT", "/box/e", map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE"}, "InvalidRequest"},
		"public":               {"PUT", "/box/e", map[string]string{"X-Amz-Acl": "public-read"}, "AccessControlListNotSupported"},
		"grant":                {"PUT", "/box/e", map[string]string{"X-Amz-Grant-Read": `uri="http://acs.amazonaws.com/groups/global/AllUsers"`}, "AccessControlListNotSupported"},
		"list of grants":       {"PUT", "/box/k?acl", map[string]string{"X-Amz-Acl": "public-read"}, "AccessControlListNotSupported"},
		"policy":               {"PUT", "/box?policy", nil, "MalformedPolicy"},
		"no versioning":        {"PUT", "/box?versioning", nil, "MalformedXML"},
		"no cors":              {"PUT", "/box?cors", nil, "MalformedXML"},
		"someone else's owner": {"GET", "/box/k", map[string]string{"X-Amz-Expected-Bucket-Owner": "123456789012"}, "AccessDenied"},
		"bucket in upper case": {"PUT", "/Box/k", nil, "InvalidBucketName"},
		"short bucket":         {"PUT", "/bo/k", nil, "InvalidBucketName"},
		"address as bucket":    {"PUT", "/10.0.0.1/k", nil, "InvalidBucketName"},
		"long key":             {"PUT", "/box/" + strings.Repeat("k/", 600), nil, "KeyTooLongError"},
		"large header":         {"GET", "/box/k", map[string]string{"X-Amz-Meta-A": strings.Repeat("a", 9000)}, "RequestHeaderSectionTooLarge"},
		"no bucket":            {"GET", "/none-such?versioning", nil, "NoSuchBucket"},
		"object of no bucket":  {"GET", "/none-such/k", nil, "NoSuchBucket"},
		"no key":               {"GET", "/box/none", nil, "NoSuchKey"},
	} {
		t.Run(name, func(t *testing.T) {
			res := g.do(t, c.method, c.path, c.header)
			if res.status < 400 || !strings.Contains(res.body, "<Code>"+c.code) {
				t.Fatalf("want %s, got %d %s", c.code, res.status, res.body)
			}
			if strings.Contains(res.body, h.dir) {
				t.Fatalf("a path of the host's: %s", res.body)
			}
		})
	}
}

func TestVirtualHost(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	if res := g.send(t, "PUT", "/dir/k", "photos."+gateway.S3Host, "x", nil); res.status != 200 {
		t.Fatalf("put: %d %s", res.status, res.body)
	}
	if res := g.do(t, "GET", "/photos/dir/k", nil); res.body != "x" {
		t.Fatalf("by path: %d %s", res.status, res.body)
	}
	if res := g.send(t, "GET", "/dir/k", "photos."+gateway.S3Host+":80", "", nil); res.body != "x" {
		t.Fatalf("by host: %d %s", res.status, res.body)
	}
	if res := g.send(t, "GET", "/", "photos."+gateway.S3Host, "", nil); !strings.Contains(res.body, "<Key>dir/k</Key>") {
		t.Fatalf("list: %d %s", res.status, res.body)
	}
	if res := g.send(t, "GET", "/photos/dir/k", gateway.S3Host, "", nil); res.body != "x" {
		t.Fatalf("by path, with the listener's name: %d %s", res.status, res.body)
	}
}

// TestGone removes a VM in the middle of an upload: the upload ends, and nothing of the VM's is
// left.
func TestGone(t *testing.T) {
	h := newHost(t)
	a, b := h.guest("alice"), h.guest("bob")
	put(t, a.dummy(), "box", "k", []byte("alice"))
	put(t, b.dummy(), "box", "k", []byte("bob"))
	reader, writer := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", a.url+"/box/slow", reader)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 1 << 20
	r.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	if err := sigv4.Sign(r, "x", "y", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if res, err := http.DefaultTransport.RoundTrip(r); err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				t.Error("the upload succeeded")
			}
		}
	}()
	if _, err := writer.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	gatewaytest.WaitFor(t, "the upload has reached the engine", func() bool {
		return len(unfinished(t, h.dir)) > 0
	})
	a.markRemoved(t)
	for range 2 {
		if err := h.Remove(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
	}
	_ = writer.Close() // the client gives up, too
	<-ended
	if left := filesBelow(t, h.dir, a.ID.String()); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	if res := a.do(t, "PUT", "/box/k", nil); res.status != 403 {
		t.Fatalf("a removed VM's PUT: %d %s", res.status, res.body)
	}
	if got := get(t, b.dummy(), "box", "k"); string(got) != "bob" {
		t.Fatalf("bob has %q", got)
	}
}

// TestGoneBesideAStalledReader removes a VM whose client accepts no more of an object: that must not
// delay the removal.
func TestGoneBesideAStalledReader(t *testing.T) {
	h := newHost(t)
	a := h.guest("alice")
	put(t, a.dummy(), "box", "large", random(1<<20))
	client, server := net.Pipe() // without a buffer
	defer client.Close()
	srv := &http.Server{
		Handler:     h.Handler(),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return gateway.WithVM(ctx, a.Identity) },
	}
	go func() { _ = srv.Serve(&oneConn{conn: server}) }() // it ends with the connection
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://s3/box/large", nil)
	gatewaytest.Must(t, err)
	r.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	gatewaytest.Must(t, sigv4.Sign(r, "x", "y", "us-east-1", time.Now()))
	gatewaytest.Must(t, r.Write(client))
	if _, err := client.Read(make([]byte, 1)); err != nil { // the write of the rest of this block has begun
		t.Fatal(err)
	}
	a.markRemoved(t)
	ctx, cancel := context.WithTimeout(t.Context(), stall/3)
	defer cancel()
	gatewaytest.Must(t, h.Remove(ctx, a.ID))
	if left := filesBelow(t, h.dir, a.ID.String()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// oneConn is a net.Listener with one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
