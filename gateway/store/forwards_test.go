package store_test

import (
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func forwardOf(vm gateway.ID, protocol gateway.Protocol, host, port uint16) gateway.Forward {
	return gateway.Forward{HostPort: gateway.HostPort{Protocol: protocol, Port: host}, VM: vm, VMPort: port}
}

// A port of the host leads to one VM, whoever asks at the same time.
func TestForwardIsClaimedOnce(t *testing.T) {
	forwards := open(t, filepath.Join(t.TempDir(), "lodge.db")).Forwards()
	var claimed atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			err := forwards.Claim(t.Context(), forwardOf(gateway.NewID(), gateway.TCP, 2222, 22))
			if err == nil {
				claimed.Add(1)
			} else if gateway.KindOf(err) != gateway.KindTaken {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if claimed.Load() != 1 {
		t.Errorf("claimed %d times", claimed.Load())
	}
}

func TestForwardsFollowTheVM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := open(t, path)
	blog, err := s.Create(t.Context(), machine("blog"))
	gatewaytest.Must(t, err)
	shop, err := s.Create(t.Context(), machine("shop"))
	gatewaytest.Must(t, err)
	ofBlog := []gateway.Forward{
		forwardOf(blog.ID, gateway.TCP, 2222, 22), forwardOf(blog.ID, gateway.UDP, 2222, 53), forwardOf(blog.ID, gateway.TCP, 3333, 22),
	}
	ofBlog[1].Addr = netip.MustParseAddr("::1")
	ofShop := forwardOf(shop.ID, gateway.TCP, 4444, 22)
	for _, f := range append(ofBlog, ofShop) {
		gatewaytest.Must(t, s.Forwards().Claim(t.Context(), f))
	}
	gatewaytest.Must(t, s.Forwards().Release(t.Context(), ofBlog[2].HostPort))
	gatewaytest.Must(t, s.Forwards().Release(t.Context(), ofBlog[2].HostPort)) // a second time
	gatewaytest.Must(t, s.Close())
	s = open(t, path)
	same := cmpopts.EquateComparable(netip.Addr{})
	got, err := s.Forwards().All(t.Context())
	if diff := cmp.Diff([]gateway.Forward{ofBlog[0], ofBlog[1], ofShop}, got, same); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	gatewaytest.Must(t, s.Delete(t.Context(), blog.ID))
	got, err = s.Forwards().All(t.Context())
	if diff := cmp.Diff([]gateway.Forward{ofShop}, got, same); err != nil || diff != "" {
		t.Errorf("after the VM: %v (-want +got):\n%s", err, diff)
	}
}
