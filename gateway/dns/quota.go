package dns

import (
	"sync"

	"lodge/gateway"
)

// quota counts what VMs have under way, so that one cannot use up what the others need.
type quota struct {
	each, all int // at most

	mu    sync.Mutex
	perVM map[gateway.ID]int
	sum   int
}

func newQuota(each, all int) *quota { return &quota{each: each, all: all, perVM: map[gateway.ID]int{}} }

// take counts one more, unless that is too many.
func (q *quota) take(id gateway.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.perVM[id] >= q.each || q.sum >= q.all {
		return false
	}
	q.perVM[id]++
	q.sum++
	return true
}

// give takes back what take has counted.
func (q *quota) give(id gateway.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sum--
	if q.perVM[id]--; q.perVM[id] == 0 {
		delete(q.perVM, id)
	}
}
