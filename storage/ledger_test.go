package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
)

// contents are MD5s; "" is no object.
type contents map[string]bool

// ledger has what each key may have: one content, or several while a call is under way or after it was cut off.
type ledger struct {
	mu       sync.Mutex
	now      map[string]contents
	inFlight map[string]string
	marks    map[string]map[string]contents // what each key may have had
	marking  string                         // the mark that is being made
	rewinds  int                            // begun or ended; odd: one is under way
	during   map[string]contents            // sent while that is
	done     int                            // rewinds that were answered
}

func add(in map[string]contents, key, sum string) {
	if in[key] == nil {
		in[key] = contents{"": true}
	}
	in[key][sum] = true
}

func cloned(in map[string]contents) map[string]contents {
	out := map[string]contents{}
	for key, c := range in {
		out[key] = maps.Clone(c)
	}
	return out
}

// send is called before a write. It returns what done needs.
func (l *ledger) send(key, sum string) (rewinds int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight[key] = sum
	add(l.now, key, sum)
	if l.marking != "" {
		add(l.marks[l.marking], key, sum)
	}
	if l.rewinds%2 == 1 {
		add(l.during, key, sum)
	}
	return l.rewinds
}

// written is called after a write that was answered. If there was a rewind meanwhile, it may have been before it.
func (l *ledger) written(key, sum string, rewinds int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inFlight, key)
	if l.rewinds == rewinds && rewinds%2 == 0 {
		l.now[key] = contents{sum: true}
	}
}

func (l *ledger) failed(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inFlight, key)
}

// mark begins a mark, whose id it returns.
func (l *ledger) mark() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marking = gateway.NewID().String()
	l.marks[l.marking] = cloned(l.now)
	return l.marking
}

func (l *ledger) marked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marking = ""
}

// rewind begins a rewind to one of the marks.
func (l *ledger) rewind() (id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id = range l.marks { // any
		break
	}
	l.rewinds++
	l.during = map[string]contents{}
	for key, sum := range l.inFlight {
		add(l.during, key, sum)
	}
	return id
}

func (l *ledger) rewound(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rewinds++
	l.done++
	before := l.now
	l.now = cloned(l.marks[id])
	for key := range before { // also those that came after the mark
		if l.now[key] == nil {
			l.now[key] = contents{"": true}
		}
	}
	for key, c := range l.during {
		for sum := range c {
			add(l.now, key, sum)
		}
	}
}

// control asks the server for a mark or a rewind.
func control(ctx context.Context, url, do, id string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/checkpoint?do="+do+"&id="+id, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %w: %s", do, id, errControl, text)
	}
	return err
}

var errControl = errors.New("refused")

// goBackAndForth makes marks and rewinds until the server is gone. It returns the rewind that was cut off.
func (l *ledger) goBackAndForth(ctx context.Context, t *testing.T, url string) (open string) {
	t.Helper()
	for n := 0; ctx.Err() == nil; n++ {
		id := l.mark()
		if err := control(ctx, url, "mark", id); err != nil {
			if errors.Is(err, errControl) {
				t.Error(err)
			}
			return ""
		}
		l.marked()
		id = l.rewind()
		if err := control(ctx, url, "rewind", id); err != nil {
			if errors.Is(err, errControl) {
				t.Error(err)
			}
			return id
		}
		l.rewound(id)
		if len(l.marks) < 8 {
			continue
		}
		delete(l.marks, id)
		if err := control(ctx, url, "drop", id); err != nil {
			if errors.Is(err, errControl) {
				t.Error(err)
			}
			return ""
		}
	}
	return ""
}

// recover does in the next life of the server what its caller would: it repeats the rewind that was cut off, and looks
// whether the mark was made that was.
func (l *ledger) recover(t *testing.T, url, open string) {
	t.Helper()
	if open != "" {
		if err := control(t.Context(), url, "rewind", open); err != nil {
			t.Fatal(err)
		}
		l.rewound(open)
	}
	l.inFlight = map[string]string{}
	if l.marking != "" {
		err := control(t.Context(), url, "mark", l.marking)
		if err == nil { // made now
			l.marks[l.marking] = cloned(l.now)
		} else if !errors.Is(err, errControl) {
			t.Fatal(err)
		}
		l.marked()
	}
}

// write stores objects, each worker below keys of its own, until the server is gone.
func (l *ledger) write(ctx context.Context, c *minio.Client, worker int, done func()) {
	for ctx.Err() == nil {
		key := fmt.Sprintf("w%d/k%d", worker, rand.IntN(4))
		size, opts := 1+rand.IntN(200_000), minio.PutObjectOptions{DisableMultipart: true}
		if rand.IntN(8) == 0 {
			size, opts = 6<<20, minio.PutObjectOptions{PartSize: 5 << 20}
		}
		data := random(size)
		sum := md5.Sum(data)
		name := hex.EncodeToString(sum[:])
		rewinds := l.send(key, name)
		_, err := c.PutObject(ctx, "box", key, bytes.NewReader(data), int64(size), opts)
		switch {
		case err == nil:
			l.written(key, name, rewinds)
		case minio.ToErrorResponse(err).StatusCode == 0: // it is no answer
			return
		default: // a rewind aborts uploads
			l.failed(key)
		}
		done()
	}
}

// check reads everything back: each key has one of the contents that it may have.
func (l *ledger) check(t *testing.T, c *minio.Client) {
	t.Helper()
	seen := map[string]string{}
	for o := range c.ListObjects(t.Context(), "box", minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		r, err := c.GetObject(t.Context(), "box", o.Key, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h := md5.New()
		if _, err := io.Copy(h, r); err != nil {
			t.Fatalf("read %s: %v", o.Key, err)
		}
		seen[o.Key] = hex.EncodeToString(h.Sum(nil))
		if l.now[o.Key] == nil {
			t.Errorf("%s was never written", o.Key)
		}
	}
	for key, may := range l.now {
		if !may[seen[key]] {
			t.Errorf("%s has %q, and may have %v", key, seen[key], may)
		}
		l.now[key] = contents{seen[key]: true}
	}
}
