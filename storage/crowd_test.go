package storage

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// Slow uploads of 16 VMs take what there is in common, and no more. Others have their places, and so
// has the host for each of the VMs.
func TestCrowdOfSlowUploads(t *testing.T) {
	h := newHost(t)
	before := heap()
	var crowd []guest
	total := 0
	for i := range 16 {
		g := h.guest(fmt.Sprintf("slow-%d", i))
		crowd = append(crowd, g)
		held := g.slowUploads(t)
		if held < ownRequests {
			t.Errorf("%s has %d requests under way; %d places are its own", g.Name, held, ownRequests)
		}
		total += held
	}
	if most := commonRequests + 16*ownRequests; total < commonRequests/2 || total > most {
		t.Errorf("%d slow uploads were taken, at most %d are meant", total, most)
	}
	// both ends of the connections are in this process
	if grown := heap() - before; grown > int64(total)*(256<<10) {
		t.Errorf("%d slow uploads take %d KiB each", total, grown/int64(total)>>10)
	}
	other := h.guest("other")
	put(t, other.dummy(), "box", "k", []byte("x"))
	if got := get(t, other.dummy(), "box", "k"); string(got) != "x" {
		t.Errorf("another VM reads %q", got)
	}
	for _, g := range []guest{crowd[0], other} {
		keys := g.minted()
		put(t, client(t, h.hostDoor(), keys.AccessKey, keys.SecretKey), "box", "of-the-host", []byte("y"))
	}
}

// slowUploads begins uploads that send no more, until one is refused, and returns how many were taken.
func (g guest) slowUploads(t *testing.T) (n int) {
	t.Helper()
	for ; ; n++ {
		w := g.wire(t)
		w.start(http.MethodPut, fmt.Sprintf("/box/slow-%d", n), 1<<20, expect100)
		switch line := w.line(); {
		case line == "HTTP/1.1 100 Continue":
			w.send(strings.Repeat("x", 40<<10))
		case strings.HasPrefix(line, "HTTP/1.1 503"):
			return n
		default:
			t.Fatalf("upload %d: %q", n, line)
		}
	}
}

// hostDoor serves on a port that stands for the host's own socket.
func (h *host) hostDoor() string { return h.serve(h.HostHandler(), noVM()) }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
