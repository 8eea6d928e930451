package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
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
		"addr", "buckets", "cpus", "created", "direct_boot", "disk_gib", "domains", "id", "image", "mail_domain", "memory_mib", "name", "reason", "rollback_inside",
		"shares", "state", "url", "wake_on_request",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(shown))); diff != "" {
		t.Error(diff)
	}
	s, _ := listing(t)
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(all); err != nil || strings.Contains(string(text), hidden) {
		t.Errorf("the template of a VM is shown, %v", err)
	}
}

// hidden is the template of all VMs of listing.
const hidden = "debian-13-1cpu-512mib-hidden"

// observer counts the questions that it gets.
type observer struct {
	api.Observer
	asked    int
	statuses map[gateway.ID]gateway.Status
}

func (o *observer) Statuses(context.Context) map[gateway.ID]gateway.Status {
	o.asked++
	return o.statuses
}

type web struct{ api.Web }

func (web) RequestURL(id string) string { return "https://lodge.localhost/.lodge/requests?id=" + id }

func (web) DomainURL(domain string) (string, bool) { return "https://" + domain, true }

func (web) URL(m gateway.VM, _ uint16) string { return "https://" + m.Name }

// listing is an API with 1,000 VMs; all but the first are seen to run.
func listing(tb testing.TB) (api.Session, *observer) {
	tb.Helper()
	o := &observer{statuses: map[gateway.ID]gateway.Status{}}
	var vms []gateway.VM
	for i := range 1000 {
		vm := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: fmt.Sprintf("vm%03d", i)}, Desired: gateway.Running, Disk: hidden}
		vms = append(vms, vm)
		if i > 0 {
			o.statuses[vm.ID] = gateway.Status{State: "running"}
		}
	}
	directory := gatewaytest.NewDirectory(tb, &gatewaytest.Records{}, vms...)
	known, _ := book(tb)
	return api.New(api.Config{Directory: directory, Observer: o, Web: web{}, People: known}).As(api.Owner()), o
}

// A list asks for all statuses once, however many VMs there are.
func TestListAsksOnce(t *testing.T) {
	s, o := listing(t)
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1000 || o.asked != 1 {
		t.Fatalf("%d VMs with %d questions, %v", len(all), o.asked, err)
	}
	if all[0].State != "starting" || all[1].State != "running" || all[1].URL != "https://vm001" {
		t.Errorf("listed %+v and %+v", all[0], all[1])
	}
}

func BenchmarkList1000(b *testing.B) {
	s, _ := listing(b)
	for b.Loop() {
		if _, err := s.List(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestHealthIsThatOfTheDaemon(t *testing.T) {
	directory := gatewaytest.NewDirectory(t, &gatewaytest.Records{})
	for _, want := range []api.Health{{Ready: true}, {Reason: "the taps are not in place"}} {
		ready := func() error {
			if want.Ready {
				return nil
			}
			return errors.New(want.Reason)
		}
		known, _ := book(t)
		got, err := api.New(api.Config{Directory: directory, People: known, Ready: ready}).As(api.Owner()).Health(t.Context())
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}
