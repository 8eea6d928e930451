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

// admission has the requests of each VM from their admission to the end of all work on them: it limits
// them, and ends them when the VM is removed.
type admission struct {
	directory       *gateway.Directory
	requests, lists *limit.Limit[gateway.ID]

	mu     sync.Mutex
	all    map[gateway.ID]admitted // with requests in progress
	closed bool
}

type admitted struct {
	ctx  context.Context // ends when the VM is removed
	end  context.CancelFunc
	left chan struct{} // closed when the last request has ended
}

func newAdmission(directory *gateway.Directory) *admission {
	return &admission{
		directory: directory, requests: limit.New[gateway.ID](maxRequestsPerVM, 0),
		lists: limit.New[gateway.ID](maxLongListsPerVM, 0), all: map[gateway.ID]admitted{},
	}
}

// enter admits a request of a VM that is not being removed; long means that its body is a long
// list. The context that it returns ends with the VM, too.
func (a *admission) enter(ctx context.Context, id gateway.ID, long bool) (_ context.Context, leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, nil, errClosed()
	}
	if m, ok := a.directory.ByID(id); !ok || m.Desired == gateway.Removed { // with the lock: see end
		return nil, nil, errGone()
	}
	leaveRequests, ok := a.requests.Enter(id)
	if !ok {
		return nil, nil, errSlowDown()
	}
	leaveLists := func() {}
	if long {
		if leaveLists, ok = a.lists.Enter(id); !ok {
			leaveRequests()
			return nil, nil, errSlowDown()
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.of(id).ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		leaveLists()
		a.leave(id, leaveRequests)
	}, nil
}

func (a *admission) of(id gateway.ID) admitted {
	vm, ok := a.all[id]
	if !ok {
		vm.left = make(chan struct{})
		vm.ctx, vm.end = context.WithCancel(context.Background())
		a.all[id] = vm
	}
	return vm
}

func (a *admission) leave(id gateway.ID, leaveRequests func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	leaveRequests()
	if left, _ := a.requests.Held(id); left == 0 {
		vm := a.all[id]
		vm.end()
		close(vm.left)
		delete(a.all, id)
	}
}

// end ends the requests of a VM, whose record is marked as removed, and waits until they have left:
// their work in the engine has ended, too.
func (a *admission) end(ctx context.Context, id gateway.ID) error {
	a.mu.Lock()
	vm, ok := a.all[id]
	a.mu.Unlock()
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
func (a *admission) close() {
	a.mu.Lock()
	a.closed = true
	var left []chan struct{}
	for _, vm := range a.all {
		vm.end()
		left = append(left, vm.left)
	}
	a.mu.Unlock()
	for _, c := range left {
		<-c
	}
}
