package storage

import (
	"os"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// What is damaged on the disk is refused before the answer begins, and is told to the log; other parts of
// the object can still be read.
func TestDamage(t *testing.T) {
	var log gatewaytest.Log
	h := newHost(t)
	h.log = log.Logger()
	g := h.guest("blog")
	data := random(3 << 20)
	put(t, g.dummy(), "box", "k", data)
	files := filesBelow(t, h.dir, "blobs/"+g.ID.String()+"/")
	var blob string
	for _, path := range files {
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			blob = path
		}
	}
	f, err := os.OpenFile(blob, os.O_RDWR, 0)
	gatewaytest.Must(t, err)
	_, err = f.WriteAt([]byte{data[5] ^ 1}, 5)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, f.Close())
	g.do(t, "GET", "/box/k", nil).want(t, "damaged", 500, code("InternalError"))
	g.do(t, "GET", "/box/k", map[string]string{"Range": "bytes=3-9"}).want(t, "the damaged part", 500, code("InternalError"))
	g.do(t, "GET", "/box/k", map[string]string{"Range": "bytes=2097152-2097155"}).want(t, "another part", 206, string(data[2<<20:2<<20+4]))
	gatewaytest.Must(t, os.Truncate(blob, 100))
	g.do(t, "GET", "/box/k", nil).want(t, "cut", 500, code("InternalError"))
	gatewaytest.Must(t, os.Remove(blob))
	g.do(t, "GET", "/box/k", nil).want(t, "gone", 500, code("InternalError"))
	if log.Count("damaged") < 4 {
		t.Errorf("the log has\n%s", &log)
	}
	for what, id := range map[string]gateway.ID{"the VM": g.ID, "all": {}} {
		found, err := h.Damage(t.Context(), id)
		if err != nil || len(found) != 1 || found[0].VM != g.ID || found[0].Bucket != "box" || found[0].Key != "k" || found[0].Reason == "" {
			t.Errorf("the check of %s: %+v, %v", what, found, err)
		}
	}
	put(t, g.dummy(), "box", "k", data) // it can be replaced
	if found, err := h.Damage(t.Context(), g.ID); err != nil || len(found) != 0 {
		t.Errorf("the check afterwards: %+v, %v", found, err)
	}
	if got := get(t, g.dummy(), "box", "k"); string(got) != string(data) {
		t.Error("other bytes")
	}
}
