package storage

import (
	"context"
	"sync"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// maxRequestsPerVM limits the requests of one VM that are in progress. Further ones get SlowDown.
const maxRequestsPerVM = 256

// A list in a request's body (keys to delete, parts) is in memory as a whole, several times its
// size. So few long ones of a VM may be in progress.
const (
	longList          = 256 << 10 // bytes
	maxLongListsPerVM = 8
)

// tenants limits each VM's requests, and ends them all when the VM is removed.
type tenants struct {
	requests, lists *limit.Limit[gateway.ID]

	mu  sync.Mutex
	all map[gateway.ID]tenant // of VMs with requests in progress, and removed ones
}

type tenant struct {
	ctx context.Context // ends when the VM is removed
	end context.CancelFunc
}

func newTenants() *tenants {
	return &tenants{
		requests: limit.New[gateway.ID](maxRequestsPerVM, 0), lists: limit.New[gateway.ID](maxLongListsPerVM, 0),
		all: map[gateway.ID]tenant{},
	}
}

// enter admits a request of a VM; long means that its body is a long list. The context that it
// returns ends with the VM, too.
func (t *tenants) enter(ctx context.Context, id gateway.ID, long bool) (_ context.Context, leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[id].removed() {
		return nil, nil, errGone()
	}
	leaveRequests, ok := t.requests.Enter(id)
	if !ok {
		return nil, nil, errSlowDown()
	}
	leaveLists := func() {}
	if long {
		if leaveLists, ok = t.lists.Enter(id); !ok {
			leaveRequests()
			return nil, nil, errSlowDown()
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.of(id).ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		leaveLists()
		t.leave(id, leaveRequests)
	}, nil
}

func (t tenant) removed() bool { return t.ctx != nil && t.ctx.Err() != nil }

func (t *tenants) of(id gateway.ID) tenant {
	vm, ok := t.all[id]
	if !ok {
		vm.ctx, vm.end = context.WithCancel(context.Background())
		t.all[id] = vm
	}
	return vm
}

func (t *tenants) leave(id gateway.ID, leaveRequests func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	leaveRequests()
	if left, _ := t.requests.Held(id); left == 0 && !t.all[id].removed() { // a removed one stays closed
		t.all[id].end()
		delete(t.all, id)
	}
}

// end ends a VM's requests and admits no more.
func (t *tenants) end(id gateway.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(id).end()
}
