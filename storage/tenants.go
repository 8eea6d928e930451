package storage

import (
	"context"
	"sync"

	"lodge/gateway"
)

// maxRequestsPerVM limits what one VM can have under way at once; the rest is told to slow down.
const maxRequestsPerVM = 256

// A list in a request's body (keys to delete, parts) is held in memory as a whole, several times its size: of long ones a
// VM can have few under way.
const (
	longList          = 256 << 10 // bytes
	maxLongListsPerVM = 8
)

// tenants counts each VM's requests, and can end them all.
type tenants struct {
	mu  sync.Mutex
	all map[gateway.ID]*tenant
}

type tenant struct {
	live int
	long int             // of these, with a long list
	ctx  context.Context // ends when the VM is removed
	end  context.CancelFunc
}

func newTenants() *tenants { return &tenants{all: map[gateway.ID]*tenant{}} }

// enter admits a request of a VM's; long says that it brings a long list. The context that it returns ends with the VM, too.
func (t *tenants) enter(ctx context.Context, id gateway.ID, long bool) (_ context.Context, leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	vm := t.of(id)
	switch {
	case vm.ctx.Err() != nil:
		return nil, nil, errGone()
	case vm.live >= maxRequestsPerVM, long && vm.long >= maxLongListsPerVM:
		return nil, nil, errSlowDown()
	}
	vm.live++
	if long {
		vm.long++
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(vm.ctx, cancel)
	return ctx, func() { stop(); cancel(); t.leave(id, long) }, nil
}

func (t *tenants) of(id gateway.ID) *tenant {
	vm := t.all[id]
	if vm == nil {
		ctx, end := context.WithCancel(context.Background())
		vm = &tenant{ctx: ctx, end: end}
		t.all[id] = vm
	}
	return vm
}

func (t *tenants) leave(id gateway.ID, long bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	vm := t.all[id]
	vm.live--
	if long {
		vm.long--
	}
	if vm.live == 0 && vm.ctx.Err() == nil { // a removed one stays, and stays shut
		vm.end()
		delete(t.all, id)
	}
}

// end ends a VM's requests and admits no more.
func (t *tenants) end(id gateway.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(id).end()
}
