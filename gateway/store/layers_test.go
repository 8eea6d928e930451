package store

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s, err := Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/24"))
	gatewaytest.Must(t, err)
	created := time.Unix(1_790_000_000, 0).UTC()
	base := gateway.Layer{ID: "image/tiny-1", File: "images/tiny-1.raw", Format: gateway.Raw, Bytes: 1 << 30, State: gateway.LayerReady, Created: created}
	over := gateway.Layer{ID: "a", Parent: base.ID, VM: gateway.NewID(), File: "disks/a.qcow2", Format: gateway.QCOW2, Bytes: 2 << 30, State: gateway.LayerMaking, Created: created}
	orphan := over
	orphan.ID, orphan.Parent, orphan.File = "b", "none", "disks/b.qcow2"
	if err := s.Layers().Put(t.Context(), base, orphan); err == nil {
		t.Error("a layer without its parent was accepted")
	}
	gatewaytest.Must(t, s.Layers().Put(t.Context(), base, over))
	over.State = gateway.LayerReady
	gatewaytest.Must(t, s.Layers().Put(t.Context(), over))
	top := over
	top.ID, top.Parent, top.File = "top", over.ID, "disks/top.qcow2"
	gatewaytest.Must(t, s.Layers().Put(t.Context(), top))
	top.Parent = base.ID // its layers were merged
	gatewaytest.Must(t, s.Layers().Put(t.Context(), top))
	same := over
	same.ID = "c"
	if err := s.Layers().Put(t.Context(), same); err == nil {
		t.Error("two layers have one file")
	}
	if err := s.Layers().Delete(t.Context(), base.ID); err == nil {
		t.Error("a layer with a child was deleted")
	}
	gatewaytest.Must(t, s.Close())
	if s, err = Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/24")); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := []gateway.Layer{base, over, top}
	for _, id := range []gateway.LayerID{top.ID, over.ID, base.ID, "none"} {
		got, err := s.Layers().All(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v, -want +got:\n%s", err, diff)
		}
		gatewaytest.Must(t, s.Layers().Delete(t.Context(), id))
		want = want[:max(0, len(want)-1)]
	}
}

// The disk of each VM becomes its first layer, in the file where it is.
func TestMigrateDisks(t *testing.T) {
	const id = "01234567-89ab-4def-8123-456789abcde" // and one digit
	row := func(number int, rest string) string {
		return fmt.Sprintf(`INSERT INTO machines VALUES (%[1]d, x'%[2]s%[1]d', 'vm%[1]d', '10.213.0.%[1]d', 0,
			'{"id":"%[3]s%[1]d","number":%[1]d,"name":"vm%[1]d","addr":"10.213.0.%[1]d","disk_gib":10,"created":"2026-11-28T10:00:00Z"%[4]s}')`,
			number, strings.ReplaceAll(id, "-", ""), id, rest)
	}
	s := migrated(t, row(2, `,"ready":true`), row(3, `,"ready":true,"base":"tiny-hxk3v7qa"`), row(4, `,"ready":false`),
		row(5, `,"ready":true,"base":"tiny-hxk3v7qa"`))
	all, err := s.Layers().All(t.Context())
	gatewaytest.Must(t, err)
	var got []string
	for _, l := range all {
		got = append(got, fmt.Sprintf("%s over %q of %s: %s %s %d %s", l.ID, l.Parent, l.VM, l.File, l.Format, l.Bytes, l.Created.Format(time.DateOnly)))
	}
	const none = "00000000-0000-0000-0000-000000000000"
	want := []string{
		`template/tiny-hxk3v7qa over "" of ` + none + `: templates/tiny-hxk3v7qa/disk raw 0 1970-01-01`,
		id + `3 over "template/tiny-hxk3v7qa" of ` + id + `3: disks/` + id + `3.qcow2 qcow2 10737418240 2026-11-28`,
		id + `5 over "template/tiny-hxk3v7qa" of ` + id + `5: disks/` + id + `5.qcow2 qcow2 10737418240 2026-11-28`,
		id + `2 over "" of ` + id + `2: disks/` + id + `2.img raw 10737418240 2026-11-28`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	vms, err := s.VMs(t.Context())
	gatewaytest.Must(t, err)
	for i, want := range []gateway.LayerID{id + "2", id + "3", "", id + "5"} {
		if vms[i].Disk != want {
			t.Errorf("%s has the layer %q, want %q", vms[i].Name, vms[i].Disk, want)
		}
	}
	var left int
	gatewaytest.Must(t, s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM machines WHERE definition LIKE '%"base"%'`).Scan(&left))
	if left != 0 {
		t.Errorf("%d records still have a base", left)
	}
}
