package storage

import (
	"context"
	"fmt"
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

// tenants has the requests of each VM from their admission to the end of all work on them: it limits
// them, and ends them when the VM is removed.
type tenants struct {
	directory       *gateway.Directory
	requests, lists *limit.Limit[gateway.ID]

	mu     sync.Mutex
	all    map[gateway.ID]tenant // with requests in progress
	closed bool
}

type tenant struct {
	ctx  context.Context // ends when the VM is removed
	end  context.CancelFunc
	left chan struct{} // closed when the last request has ended
}

func newTenants(directory *gateway.Directory) *tenants {
	return &tenants{
		directory: directory, requests: limit.New[gateway.ID](maxRequestsPerVM, 0),
		lists: limit.New[gateway.ID](maxLongListsPerVM, 0), all: map[gateway.ID]tenant{},
	}
}

// enter admits a request of a VM that is not being removed; long means that its body is a long
// list. The context that it returns ends with the VM, too.
func (t *tenants) enter(ctx context.Context, id gateway.ID, long bool) (_ context.Context, leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, errClosed()
	}
	if m, ok := t.directory.ByID(id); !ok || m.Desired == gateway.Removed { // with the lock: see end
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

func (t *tenants) of(id gateway.ID) tenant {
	vm, ok := t.all[id]
	if !ok {
		vm.left = make(chan struct{})
		vm.ctx, vm.end = context.WithCancel(context.Background())
		t.all[id] = vm
	}
	return vm
}

func (t *tenants) leave(id gateway.ID, leaveRequests func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	leaveRequests()
	if left, _ := t.requests.Held(id); left == 0 {
		vm := t.all[id]
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
