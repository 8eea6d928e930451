package storage

import (
	"context"
	"fmt"
	"sync"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// admission has the requests of each VM from their admission to the end of all work on them: it limits
// them, and ends them when the VM is removed.
type admission struct {
	directory *gateway.Directory
	requests  [doors]slots
	lists     slots
	public    slots                      // lists at atPublic
	peers     *limit.Limit[gateway.Peer] // requests at atPublic

	mu     sync.Mutex
	all    map[gateway.ID]*admitted // with requests in progress
	closed bool
}

type admitted struct {
	ctx      context.Context // ends when the VM is removed
	end      context.CancelFunc
	requests int           // in progress
	left     chan struct{} // closed when the last of them has ended
}

func newAdmission(directory *gateway.Directory) *admission {
	return &admission{
		directory: directory, requests: newDoors(), all: map[gateway.ID]*admitted{},
		lists:  newSlots(ownLongLists, maxLongListsPerVM, commonLongLists),
		public: newSlots(ownLongLists, maxStrangersLists, commonStrangersList),
		peers:  limit.New[gateway.Peer](maxRequestsPerPeer, 0),
	}
}

// enter admits a request of a VM that is not being removed; long means that its body is a long
// list, or its answer to a stranger. The context that it returns ends with the VM, too.
func (a *admission) enter(ctx context.Context, id gateway.ID, at door, long bool) (_ context.Context, leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, nil, errClosed()
	}
	if m, ok := a.directory.ByID(id); !ok || m.Desired == gateway.Removed { // with the lock: see end
		return nil, nil, errGone()
	}
	leaveRequests, ok := a.requests[at].enter(id)
	if !ok {
		return nil, nil, errSlowDown()
	}
	leaveLists := func() {}
	if long {
		lists := a.lists
		if at == atPublic {
			lists = a.public
		}
		if leaveLists, ok = lists.enter(id); !ok {
			leaveRequests()
			return nil, nil, errSlowDown()
		}
	}
	ctx, end := a.add(ctx, id)
	return ctx, func() {
		leaveLists()
		leaveRequests()
		end()
	}, nil
}

// join adds a request of another VM to those of a VM whose bucket it uses. It takes none of that
// one's places.
func (a *admission) join(ctx context.Context, id gateway.ID) (_ context.Context, leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m, ok := a.directory.ByID(id); a.closed || !ok || m.Desired == gateway.Removed { // with the lock: see end
		return nil, nil, errGone()
	}
	ctx, leave = a.add(ctx, id)
	return ctx, leave, nil
}

// add notes a request, whose context ends with the VM. The caller holds a.mu; the one of end does
// not.
func (a *admission) add(ctx context.Context, id gateway.ID) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	vm := a.of(id)
	vm.requests++
	stop := context.AfterFunc(vm.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		a.leave(id, vm)
	}
}

func (a *admission) of(id gateway.ID) *admitted {
	vm, ok := a.all[id]
	if !ok {
		vm = &admitted{left: make(chan struct{})}
		vm.ctx, vm.end = context.WithCancel(context.Background())
		a.all[id] = vm
	}
	return vm
}

func (a *admission) leave(id gateway.ID, vm *admitted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if vm.requests--; vm.requests == 0 {
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
