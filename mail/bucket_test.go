package mail

import (
	"context"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// bucket is deliver.Objects in memory, with room for some objects. broken makes it lose its answer once it has stored.
type bucket struct {
	mu     sync.Mutex
	all    map[string]string
	types  map[string]string
	room   int
	broken int
}

func (b *bucket) Deposit(_ context.Context, vm gateway.Identity, name, key, contentType string, body io.Reader, bytes int64) error {
	text, err := io.ReadAll(body)
	if err != nil || int64(len(text)) != bytes {
		return gateway.Errorf(gateway.KindUnavailable, "%d of %d bytes, %v", len(text), bytes, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key = vm.Name + "/" + name + "/" + key
	if _, there := b.all[key]; there {
		return nil
	}
	if len(b.all) == b.room {
		return gateway.Errorf(gateway.KindNoSpace, "QuotaExceeded: nothing was stored")
	}
	b.all[key], b.types[key] = string(text), contentType
	if b.broken > 0 {
		b.broken--
		return gateway.Errorf(gateway.KindUnavailable, "the answer is lost")
	}
	return nil
}

func (b *bucket) setRoom(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room = n
}

func (b *bucket) stored() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.all)
}

// By the route into a bucket, each message becomes one object, byte for byte, whether the VM runs or not. What has no
// room waits, and comes when there is; one whose answer was lost comes once.
func TestRouteIntoBucket(t *testing.T) {
	t.Parallel()
	objects := &bucket{all: map[string]string{}, types: map[string]string{}, room: 3, broken: 1}
	f := start(t, t.TempDir(), func(c *Config) { c.Objects = objects })
	vm := f.add(t, "hello")
	f.setRoute(t, vm, "s3://mail/in/")
	_, err := f.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil })
	gatewaytest.Must(t, err)
	var ids []string
	for _, body := range []string{"one\r\n..two", "two", "three", "four", "five"} {
		ids = append(ids, f.deliverTo(t, vm, body))
	}
	gatewaytest.WaitFor(t, "a full bucket", func() bool { return len(objects.stored()) == 3 })
	waits := func() (n int) {
		for _, id := range ids {
			if m := f.show(t, vm, id); !m.Delivered && strings.Contains(m.Error, "QuotaExceeded") {
				n++
			}
		}
		return n
	}
	gatewaytest.WaitFor(t, "two that wait for room", func() bool { return waits() == 2 })
	objects.setRoom(10)
	f.started(t, vm)
	for _, id := range ids {
		f.awaitDelivery(t, vm, id)
	}
	all := objects.stored()
	if len(all) != len(ids) {
		t.Errorf("%d objects: %v", len(all), all)
	}
	for _, id := range ids {
		key := "hello/mail/in/" + id + ".eml"
		if want := string(f.read(t, vm, id)); all[key] != want || objects.types[key] != "message/rfc822" {
			t.Errorf("%s: %q, want %q", key, all[key], want)
		}
	}
	done, err := f.Redeliver(t.Context(), vm.ID, gateway.MailRedelivery{QueueIDs: ids[:1]})
	gatewaytest.Must(t, err)
	f.awaitDelivery(t, vm, ids[0])
	if done.Messages != 1 || len(objects.stored()) != len(ids) {
		t.Errorf("%+v, then %d objects", done, len(objects.stored()))
	}
}
