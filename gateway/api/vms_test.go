package api_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/api"
)

// The JSON of a VM is a contract: nothing of the record gets into it by itself.
func TestShownVM(t *testing.T) {
	text, err := json.Marshal(api.VM{
		Size:   gateway.Size{Image: "debian-13", CPUs: 1, MemoryMiB: 1024, DiskGiB: 8, DirectBoot: true},
		Status: gateway.Status{State: "crashed", Reason: "why"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var shown map[string]any
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"addr", "cpus", "created", "direct_boot", "disk_gib", "id", "image", "mail_domain", "memory_mib", "name", "reason",
		"shares", "state", "url",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(shown))); diff != "" {
		t.Error(diff)
	}
}
