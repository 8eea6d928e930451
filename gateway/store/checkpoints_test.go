package store

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestCheckpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s, err := Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/24"))
	gatewaytest.Must(t, err)
	created := time.Unix(1_790_000_000, 0).UTC()
	layer := gateway.Layer{ID: "a", VM: gateway.NewID(), File: "disks/a.img", Format: gateway.Raw, State: gateway.LayerReady, Created: created}
	gatewaytest.Must(t, s.Layers().Put(t.Context(), layer))
	first := gateway.Checkpoint{
		ID: "1", VM: layer.VM, Name: "first", Kind: gateway.CheckpointAsked, Layer: "a", Quiesced: true, Memory: "tcg",
		Shares: []gateway.Share{{Port: 80, Visibility: gateway.Public}}, Created: created,
		BucketShares: []gateway.BucketShare{{Bucket: "photos", Share: gateway.Share{Visibility: gateway.People, With: []gateway.Principal{3}, Domains: []string{"example.com"}}}},
	}
	second := gateway.Checkpoint{ID: "2", VM: layer.VM, Name: "second", Kind: gateway.CheckpointScheduled, Layer: "a", Created: created.Add(-time.Hour)}
	for _, c := range []gateway.Checkpoint{first, second} {
		gatewaytest.Must(t, s.Checkpoints().Create(t.Context(), c))
	}
	for name, change := range map[string]func(*gateway.Checkpoint){
		"the same name": func(c *gateway.Checkpoint) { c.ID = "3" },
		"the same id":   func(c *gateway.Checkpoint) { c.Name = "third" },
		"no such layer": func(c *gateway.Checkpoint) { c.ID, c.Name, c.Layer = "3", "third", "b" },
	} {
		c := first
		if change(&c); s.Checkpoints().Create(t.Context(), c) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := s.Layers().Delete(t.Context(), layer.ID); err == nil {
		t.Error("a layer with a checkpoint was deleted")
	}
	gatewaytest.Must(t, s.Close())
	if s, err = Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/24")); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := []gateway.Checkpoint{first, second}
	for _, id := range []gateway.CheckpointID{second.ID, first.ID, "none"} {
		got, err := s.Checkpoints().All(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v, -want +got:\n%s", err, diff)
		}
		gatewaytest.Must(t, s.Checkpoints().Delete(t.Context(), id))
		want = want[:max(0, len(want)-1)]
	}
	gatewaytest.Must(t, s.Layers().Delete(t.Context(), layer.ID))
}
