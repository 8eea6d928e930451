package storage

import (
	"context"
	"fmt"
	"sync"

	"lodge/gateway"
)

// tenants has the requests of each VM from their admission to the end of all work on them: it limits
// them, and ends them when the VM is removed.
type tenants struct {
	directory *gateway.Directory
	requests  [doors]slots
	lists     slots

	mu     sync.Mutex
	all    map[gateway.ID]*tenant // with requests in progress
	closed bool
}

type tenant struct {
	ctx      context.Context // ends when the VM is removed
	end      context.CancelFunc
	requests int           // in progress
	left     chan struct{} // closed when the last of them has ended
}

func newTenants(directory *gateway.Directory) *tenants {
	return &tenants{
		directory: directory, requests: newDoors(), all: map[gateway.ID]*tenant{},
		lists: newSlots(ownLongLists, maxLongListsPerVM, commonLongLists),
	}
}

// enter admits a request of a VM that is not being removed; long means that its body is a long
// list. The context that it returns ends with the VM, too.
func (t *tenants) enter(ctx context.Context, id gateway.ID, at door, long bool) (_ context.Context, leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, errClosed()
	}
	if m, ok := t.directory.ByID(id); !ok || m.Desired == gateway.Removed { // with the lock: see end
		return nil, nil, errGone()
	}
	leaveRequests, ok := t.requests[at].enter(id)
	if !ok {
		return nil, nil, errSlowDown()
	}
	leaveLists := func() {}
	if long {
		if leaveLists, ok = t.lists.enter(id); !ok {
			leaveRequests()
			return nil, nil, errSlowDown()
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	vm := t.of(id)
	vm.requests++
	stop := context.AfterFunc(vm.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		leaveLists()
		leaveRequests()
		t.leave(id, vm)
	}, nil
}

func (t *tenants) of(id gateway.ID) *tenant {
	vm, ok := t.all[id]
	if !ok {
		vm = &tenant{left: make(chan struct{})}
		vm.ctx, vm.end = context.WithCancel(context.Background())
		t.all[id] = vm
	}
	return vm
}

func (t *tenants) leave(id gateway.ID, vm *tenant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if vm.requests--; vm.requests == 0 {
		vm.end()
		close(vm.left)
		delete(t.all, id)
	}
}

// end ends the requests of a VM, whose record is marked as removed, and waits until they have left:
// their work in the engine has ended, too.
func (t *tenants) end(ctx context.Context, id gateway.ID) error {
	t.mu.Lock()
	vm, ok := t.all[id]
	t.mu.Unlock()
	if !ok {
		return nil
	}
	vm.end()
	select {
	case <-vm.left:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for requests: %w", ctx.Err())
	}
}

// close ends all requests, refuses further ones, and waits until those have left.
func (t *tenants) close() {
	t.mu.Lock()
	t.closed = true
	var left []chan struct{}
	for _, vm := range t.all {
		vm.end()
		left = append(left, vm.left)
	}
	t.mu.Unlock()
	for _, c := range left {
		<-c
	}
}
