package gatewaytest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"lodge/gateway"
)

// Records are gateway.Records in memory. They outlive the Directory, as the store's file outlives
// the daemon. The zero value is empty and ready; it is safe for concurrent use.
type Records struct {
	// Addr gives a new VM its address; nil gives 10.213.0.0 plus the VM's number plus 1.
	Addr func(number uint32) netip.Addr

	mu   sync.Mutex
	all  map[gateway.ID]gateway.VM
	last uint32
	fail error
}

// NewDirectory returns a Directory over records, with vms in it. It sets numbers and addresses that
// are zero.
func NewDirectory(tb testing.TB, records *Records, vms ...gateway.VM) *gateway.Directory {
	tb.Helper()
	for _, vm := range vms {
		_, err := records.Create(tb.Context(), vm)
		Must(tb, err)
	}
	directory, err := gateway.OpenDirectory(tb.Context(), records)
	Must(tb, err)
	return directory
}

// FailWith makes every later call fail with err and change nothing; nil ends that.
func (r *Records) FailWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// VMs implements gateway.Records.
func (r *Records) VMs(context.Context) ([]gateway.VM, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.all)), r.fail
}

// Create implements gateway.Records.
func (r *Records) Create(_ context.Context, vm gateway.VM) (gateway.VM, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return gateway.VM{}, r.fail
	}
	if vm.Number == 0 {
		r.last++
		vm.Number = r.last
	}
	r.last = max(r.last, vm.Number)
	if !vm.Addr.IsValid() {
		vm.Addr = r.addr(vm.Number)
	}
	if r.all == nil {
		r.all = map[gateway.ID]gateway.VM{}
	}
	r.all[vm.ID] = vm
	return vm, nil
}

func (r *Records) addr(number uint32) netip.Addr {
	if r.Addr != nil {
		return r.Addr(number)
	}
	n := number + 1
	return netip.AddrFrom4([4]byte{10, 213, byte(n >> 8), byte(n)})
}

// Save implements gateway.Records. It fails with KindNotFound for a VM that was never created or is
// deleted.
func (r *Records) Save(_ context.Context, vm gateway.VM) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if _, ok := r.all[vm.ID]; !ok {
		return gateway.NotFound(vm.Name)
	}
	r.all[vm.ID] = vm
	return nil
}

// Delete implements gateway.Records.
func (r *Records) Delete(_ context.Context, id gateway.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		delete(r.all, id)
	}
	return r.fail
}
