package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/notification"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/events"
)

// inside is a VM's web server for events. It has all that was posted, and answers as answer decides.
type inside struct {
	mu     sync.Mutex
	posts  []posted
	answer func(http.ResponseWriter, *http.Request)
	addr   string
}

type posted struct {
	path   string
	header http.Header
	event  notification.Event
}

func (s *inside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var body notification.Info
	if err != nil || json.Unmarshal(text, &body) != nil || len(body.Records) != 1 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.posts = append(s.posts, posted{r.URL.RequestURI(), r.Header, body.Records[0]})
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		answer(w, r)
	}
}

func (s *inside) answers(f func(http.ResponseWriter, *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// names are the events so far, each as its name and key.
func (s *inside) names() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.posts {
		all = append(all, p.event.EventName+" "+p.event.S3.Object.Key)
	}
	return all
}

func (s *inside) all() []posted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.posts)
}

// wantEvents waits for exactly these.
func (s *inside) want(t *testing.T, want ...string) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		if diff := cmp.Diff(want, s.names()); diff != "" {
			return fmt.Errorf("events (-want +got):\n%s", diff)
		}
		return nil
	})
}

// insides are the web servers of VMs, by name.
type insides struct {
	mu  sync.Mutex
	all map[string]*inside
}

// in makes the server of a VM.
func (i *insides) in(t *testing.T, name string) *inside {
	t.Helper()
	s := &inside{}
	server := httptest.NewServer(s)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	s.addr = server.Listener.Addr().String()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all[name] = s
	return s
}

func (i *insides) dial(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) {
	i.mu.Lock()
	s := i.all[m.Name]
	i.mu.Unlock()
	if s == nil || port != 8080 {
		return nil, fmt.Errorf("connection to port %d of %s refused", port, m.Name)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
}

// newHostOfEvents is a host whose VMs have web servers.
func newHostOfEvents(t *testing.T, dir string) (*host, *insides) {
	t.Helper()
	in := &insides{all: map[string]*inside{}}
	return newHostWith(t, func(c *Config) {
		c.Dir, c.Dial, c.Domain = dir, in.dial, "lodge.localhost"
		c.eventTimes = events.Times{Step: time.Second, RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond}
	}), in
}

const hook = "arn:lodge:http:::8080/hook?a=b"

// notify sets a bucket's configuration: all events to a target.
func (g guest) notify(t *testing.T, bucket, target string, names ...string) {
	t.Helper()
	g.doBody(t, "PUT", "/"+bucket+"?notification", notifyText(target, "", "", names...)).want(t, "configuration", 200)
}

func notifyText(target, prefix, suffix string, names ...string) string {
	if len(names) == 0 {
		names = []string{"s3:ObjectCreated:*", "s3:ObjectRemoved:*"}
	}
	var text strings.Builder
	text.WriteString("<NotificationConfiguration><QueueConfiguration><Queue>" + target + "</Queue><Event>" + strings.Join(names, "</Event><Event>") + "</Event>")
	for name, value := range map[string]string{"prefix": prefix, "suffix": suffix} {
		if value != "" {
			text.WriteString("<Filter><S3Key><FilterRule><Name>" + name + "</Name><Value>" + value + "</Value></FilterRule></S3Key></Filter>")
		}
	}
	return text.String() + "</QueueConfiguration></NotificationConfiguration>"
}

// Each kind of write has its event, in S3's JSON, in the order of the writes.
func TestEvents(t *testing.T) {
	h, in := newHostOfEvents(t, t.TempDir())
	g := h.guest("blog")
	server, c := in.in(t, "blog"), g.keyed()
	put(t, c, "box", "before", []byte("x"))
	put(t, c, "other", "before", []byte("x"))
	arn := notification.NewArn("lodge", "http", "", "", "8080/hook")
	config := notification.NewConfig(arn)
	config.AddEvents(notification.ObjectCreatedAll, notification.ObjectRemovedAll)
	config.AddFilterPrefix("in/")
	config.AddFilterSuffix(".txt")
	var all notification.Configuration
	all.AddLambda(config)
	gatewaytest.Must(t, c.SetBucketNotification(t.Context(), "box", all))
	read, err := c.GetBucketNotification(t.Context(), "box")
	gatewaytest.Must(t, err)
	if len(read.LambdaConfigs) != 1 || read.LambdaConfigs[0].Lambda != arn.String() || !read.LambdaConfigs[0].Equal(config.Events, "in/", ".txt") || read.LambdaConfigs[0].ID == "" {
		t.Fatalf("the configuration is %+v", read)
	}

	info := put(t, c, "box", "in/a ö.txt", []byte("hello"))
	put(t, c, "box", "in/a.jpg", []byte("x"))
	put(t, c, "box", "out/a.txt", []byte("x"))
	put(t, c, "other", "in/a.txt", []byte("x"))
	_, err = c.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: "box", Object: "in/copy.txt"}, minio.CopySrcOptions{Bucket: "box", Object: "before"})
	gatewaytest.Must(t, err)
	_, err = c.PutObject(t.Context(), "box", "in/big.txt", strings.NewReader(strings.Repeat("x", 6<<20)), -1, minio.PutObjectOptions{PartSize: 5 << 20})
	gatewaytest.Must(t, err)
	g.post(t, g.url+"/box", `{"expiration": "`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`", "conditions": [["starts-with", "$key", ""], ["starts-with", "$x-amz-credential", ""], ["starts-with", "$x-amz-algorithm", ""], ["starts-with", "$x-amz-date", ""]]}`,
		map[string]string{"key": "in/form.txt"}, "form").want(t, "form", 204)
	for _, key := range []string{"in/copy.txt", "in/never.txt"} {
		gatewaytest.Must(t, c.RemoveObject(t.Context(), "box", key, minio.RemoveObjectOptions{}))
	}
	gatewaytest.Must(t, c.EnableVersioning(t.Context(), "box"))
	version := put(t, c, "box", "in/v.txt", []byte("12")).VersionID
	gatewaytest.Must(t, c.RemoveObject(t.Context(), "box", "in/v.txt", minio.RemoveObjectOptions{}))
	gatewaytest.Must(t, c.RemoveObject(t.Context(), "box", "in/v.txt", minio.RemoveObjectOptions{VersionID: version}))
	server.want(t, "ObjectCreated:Put in/a+%C3%B6.txt", "ObjectCreated:Copy in/copy.txt", "ObjectCreated:CompleteMultipartUpload in/big.txt",
		"ObjectCreated:Post in/form.txt", "ObjectRemoved:Delete in/copy.txt", "ObjectCreated:Put in/v.txt",
		"ObjectRemoved:DeleteMarkerCreated in/v.txt", "ObjectRemoved:Delete in/v.txt")

	posts := server.all()
	first := posts[0]
	if e := first.event; e.EventVersion != "2.1" || e.EventSource != "aws:s3" || e.S3.Bucket.Name != "box" || e.S3.Bucket.OwnerIdentity.PrincipalID != g.ID.String() ||
		e.S3.Object.Size != 5 || e.S3.Object.ETag != info.ETag || e.S3.Object.VersionID != "" || e.S3.ConfigurationID != read.LambdaConfigs[0].ID {
		t.Errorf("event %+v", e)
	}
	if at, err := time.Parse(time.RFC3339, first.event.EventTime); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("time %q", first.event.EventTime)
	}
	if h := first.header; first.path != "/hook" || h.Get("X-Lodge-Event") != "s3:ObjectCreated:Put" || h.Get("X-Lodge-Events-Dropped") != "0" ||
		h.Get("Idempotency-Key") != `"`+first.event.S3.Object.Sequencer+`"` || h.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v", first.path, h)
	}
	if posts[5].event.S3.Object.VersionID != version || posts[7].event.S3.Object.VersionID != version {
		t.Errorf("versions %+v", posts[5:])
	}
	for i, p := range posts[1:] {
		if p.event.S3.Object.Sequencer <= posts[i].event.S3.Object.Sequencer {
			t.Errorf("event %d has sequencer %s", i+1, p.event.S3.Object.Sequencer)
		}
	}
}

// Events wait while the VM is off or does not answer 2xx, over a restart of the service, and come in order.
func TestEventsWait(t *testing.T) {
	dir := t.TempDir()
	h, in := newHostOfEvents(t, dir)
	g := h.guest("blog")
	put(t, g.dummy(), "box", "x", nil)
	g.notify(t, "box", hook)
	h.set(t, g, gateway.Stopped)
	put(t, g.dummy(), "box", "x", []byte("1"))
	server := in.in(t, "blog")
	var tries int
	server.answers(func(w http.ResponseWriter, r *http.Request) {
		switch tries++; tries {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case 3:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, strings.Repeat("x", 10<<20)) // the client leaves
		case 4:
			panic(http.ErrAbortHandler)
		}
	})
	put(t, g.dummy(), "box", "x", []byte("2"))
	gatewaytest.Must(t, g.dummy().RemoveObject(t.Context(), "box", "x", minio.RemoveObjectOptions{}))
	if got := server.names(); len(got) > 0 {
		t.Fatalf("events while the VM is off: %v", got)
	}
	h.set(t, g, gateway.Running)
	server.want(t, "ObjectCreated:Put x", "ObjectCreated:Put x", "ObjectCreated:Put x", "ObjectCreated:Put x", "ObjectCreated:Put x",
		"ObjectCreated:Put x", "ObjectRemoved:Delete x")
	posts := server.all()
	for _, p := range posts {
		if p.path != "/hook?a=b" {
			t.Errorf("posted to %s", p.path)
		}
	}
	if posts[0].event.S3.Object.Sequencer != posts[4].event.S3.Object.Sequencer || posts[4].event.S3.Object.Sequencer == posts[5].event.S3.Object.Sequencer {
		t.Error("other events are repeated than the first")
	}
}

// set sets what a VM should be.
func (h *host) set(t *testing.T, g guest, desired gateway.Desired) {
	t.Helper()
	_, err := h.directory.Update(t.Context(), g.ID, func(m *gateway.VM) error {
		m.Desired = desired
		return nil
	})
	gatewaytest.Must(t, err)
}

// A target that hangs delays neither the other targets of its VM for long, nor other VMs at all.
func TestHostileTargets(t *testing.T) {
	h, in := newHostOfEvents(t, t.TempDir())
	blog, shop := h.guest("blog"), h.guest("shop")
	bad, good := in.in(t, "blog"), in.in(t, "shop")
	bad.answers(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
	})
	for _, g := range []guest{blog, shop} {
		for _, bucket := range []string{"bad", "good"} {
			put(t, g.dummy(), bucket, "x", nil)
		}
	}
	blog.notify(t, "bad", "arn:lodge:http:::8080/hang")
	blog.notify(t, "good", "arn:lodge:http:::8080/good")
	shop.notify(t, "good", "arn:lodge:http:::8080/good")
	put(t, blog.dummy(), "bad", "x", nil)
	gatewaytest.WaitFor(t, "the hanging request", func() bool { return len(bad.names()) == 1 })
	put(t, shop.dummy(), "good", "shop", nil)
	good.want(t, "ObjectCreated:Put shop")
	put(t, blog.dummy(), "good", "blog", nil)
	gatewaytest.WaitFor(t, "the good target of the VM that hangs", func() bool { return slices.Contains(bad.names(), "ObjectCreated:Put blog") })
	if slices.Contains(good.names(), "ObjectCreated:Put blog") {
		t.Error("an event of another VM")
	}
	blog.notify(t, "bad", "arn:lodge:http:::8080/good") // the same rule: what waits goes there
	put(t, blog.dummy(), "bad", "y", nil)
	gatewaytest.WaitFor(t, "the new target", func() bool { return slices.Contains(bad.names(), "ObjectCreated:Put y") })
	moved := slices.ContainsFunc(bad.all(), func(p posted) bool { return p.path == "/good" && p.event.S3.Object.Key == "x" })
	if !moved {
		t.Error("what waited for the old target is gone")
	}
	gatewaytest.WaitFor(t, "an empty queue", func() bool {
		page, err := h.objects.Events(blog.ID, 0, 10)
		return err == nil && len(page.Events) == 0
	})
}

// What would lead elsewhere, or to nothing, is refused with S3's errors.
func TestBadNotifications(t *testing.T) {
	h, _ := newHostOfEvents(t, t.TempDir())
	g, other := h.guest("blog"), h.guest("shop")
	put(t, g.dummy(), "box", "x", nil)
	one := func(inner string) string {
		return "<NotificationConfiguration><TopicConfiguration><Topic>arn:lodge:http:::8080/</Topic>" + inner + "</TopicConfiguration></NotificationConfiguration>"
	}
	filter := func(name, value string) string {
		return "<FilterRule><Name>" + name + "</Name><Value>" + value + "</Value></FilterRule>"
	}
	put := "<Event>s3:ObjectCreated:Put</Event>"
	for name, tt := range map[string]struct {
		text, code string
		status     int
	}{
		"a queue of AWS":     {notifyText("arn:aws:sqs:us-east-1:1234:q", "", ""), "InvalidArgument", 400},
		"another machine":    {notifyText("arn:lodge:http:::10.0.0.1/", "", ""), "InvalidArgument", 400},
		"an address":         {notifyText("http://10.0.0.1:80/", "", ""), "InvalidArgument", 400},
		"port 0":             {notifyText("arn:lodge:http:::0/", "", ""), "InvalidArgument", 400},
		"port 65536":         {notifyText("arn:lodge:http:::65536/", "", ""), "InvalidArgument", 400},
		"a line break":       {notifyText("arn:lodge:http:::80/&#10;x", "", ""), "InvalidArgument", 400},
		"no target":          {notifyText("", "", ""), "InvalidArgument", 400},
		"a long target":      {notifyText("arn:lodge:http:::80/"+strings.Repeat("x", 500), "", ""), "InvalidArgument", 400},
		"no event":           {one(""), "MalformedXML", 400},
		"an unknown event":   {one("<Event>s3:ObjectCreated:Nothing</Event>"), "InvalidArgument", 400},
		"no prefix of event": {one("<Event>ObjectCreated:Put</Event>"), "InvalidArgument", 400},
		"half a wildcard":    {one("<Event>s3:Object*</Event>"), "InvalidArgument", 400},
		"tags":               {one("<Event>s3:ObjectTagging:*</Event>"), "NotImplemented", 501},
		"two prefixes":       {one(put + "<Filter><S3Key>" + filter("prefix", "a") + filter("Prefix", "b") + "</S3Key></Filter>"), "InvalidArgument", 400},
		"a regular filter":   {one(put + "<Filter><S3Key>" + filter("regex", "a") + "</S3Key></Filter>"), "InvalidArgument", 400},
		"an unknown element": {one(put + "<Retries>3</Retries>"), "MalformedXML", 400},
		"an unknown filter":  {one(put + "<Filter><S3Key/><S3Metadata/></Filter>"), "MalformedXML", 400},
		"an unknown key":     {one(put + "<Filter><S3Key><Regex>a</Regex></S3Key></Filter>"), "MalformedXML", 400},
		"an unknown rule":    {one(put + "<Filter><S3Key><FilterRule><Name>prefix</Name><Value>a</Value><Not/></FilterRule></S3Key></Filter>"), "MalformedXML", 400},
		"EventBridge":        {"<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>", "NotImplemented", 501},
		"another document":   {"<Website/>", "MalformedXML", 400},
		"an overlap": {"<NotificationConfiguration>" + "<QueueConfiguration><Queue>arn:lodge:http:::80/</Queue>" + put + "<Id>a</Id></QueueConfiguration>" +
			"<QueueConfiguration><Id>b</Id><Queue>arn:lodge:http:::80/</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>", "InvalidArgument", 400},
	} {
		g.doBody(t, "PUT", "/box?notification", tt.text).want(t, name, tt.status, code(tt.code))
	}
	g.doBody(t, "PUT", "/box?notification", notifyText(hook, strings.Repeat("x", 32<<10), "")).want(t, "a long one", 400, code("MaxMessageLengthExceeded"))
	g.doBody(t, "PUT", "/none?notification", one(put)).want(t, "a bucket that is missing", 404, code("NoSuchBucket"))
	none := func() {
		t.Helper()
		if got := g.do(t, "GET", "/box?notification", nil); got.status != 200 || strings.Contains(got.body, "Topic") || !strings.Contains(got.body, "<NotificationConfiguration") {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	none()
	g.doBody(t, "PUT", "/box?notification", one(put)).want(t, "a good one", 200)
	g.do(t, "GET", "/box?notification", nil).want(t, "the configuration", 200, "<Topic>arn:lodge:http:::8080/</Topic>")
	g.doBody(t, "PUT", "/box?notification", "<NotificationConfiguration/>").want(t, "an empty one", 200)
	none()
	g.grant(t, "box", other, gateway.WriteBucket)
	other.doBody(t, "PUT", "/blog_box?notification", one(put)).want(t, "by a grant", 403, code("AccessDenied"))
}
