package storage

import (
	"lodge/gateway"
	"lodge/gateway/limit"
)

// door is where a request comes in. Each has places of its own: a VM with as many requests under way
// as it may have is still administered from the host, and a crowd outside takes none of its places.
type door int

const (
	atTap     door = iota // of the VM
	atHost                // the host's own socket
	atOutside             // the public names, with a key or a login
	atPublic              // there, without either

	doors
)

// A request in progress has a place. Each body on its way has a buffer of 64 KiB, and a second one
// if it is encrypted, so the places bound the memory that slow clients of all VMs take together:
// 1,024 common places, and 32 for each VM.
const (
	maxRequestsPerVM = 256 // at its tap; further ones get SlowDown
	ownRequests      = 16  // of these, which no other VM can take
	commonRequests   = 512 // which the VMs share beyond those, see package limit
)

// A list in a request's body (keys to delete, parts) is in memory as a whole, several times its
// size. So few long ones may be in progress.
const (
	longList          = 256 << 10 // bytes
	maxLongListsPerVM = 8
	ownLongLists      = 1
	commonLongLists   = 32
)

// slots limits what VMs hold at once. Each has some places that are its own alone, and then takes of
// those that all share.
type slots struct{ own, common *limit.Limit[gateway.ID] }

// Strangers hold few places each, at all VMs together, and few lists of a VM: the lists of who has
// a key are others.
const (
	maxRequestsPerPeer  = 64 // a page with its images is one address's, as are all who share one
	maxStrangersLists   = 8  // of a VM
	commonStrangersList = 32
)

// newSlots returns slots of which each VM has at most each, own of them for itself.
func newSlots(own, each, common int) slots {
	return slots{limit.New[gateway.ID](own, 0), limit.New[gateway.ID](each-own, common)}
}

// newDoors returns the places for requests, by door.
func newDoors() [doors]slots {
	return [doors]slots{
		atTap:     newSlots(ownRequests, maxRequestsPerVM, commonRequests),
		atHost:    newSlots(4, 64, 128),
		atOutside: newSlots(8, 128, 256),
		atPublic:  newSlots(4, 64, 128),
	}
}

// enter takes a place for a VM; leave gives it back.
func (s slots) enter(id gateway.ID) (leave func(), ok bool) {
	if leave, ok = s.own.Enter(id); ok {
		return leave, true
	}
	return s.common.Enter(id)
}
