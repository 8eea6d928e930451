package store

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
	"lodge/gateway/hold"
)

// account is what the Store has in memory of one VM. It is made at the first use, and stays.
type account struct {
	vm gateway.ID

	// commits is held shared by each commit, see begin, and alone by what concerns the VM as a whole.
	commits  sync.RWMutex
	gate     hold.Gate // closed while a snapshot holds commits back, or a restore is under way
	removed  bool
	progress []byte     // the record of a restore or drop that has not ended, or nil
	snaps    []snapshot // in ascending order

	mixed atomic.Bool   // a restore or fork has begun and not ended: records are of two moments
	turns atomic.Uint64 // how often mixed has changed, see moment

	// clearing is held shared while a collection commits, and alone while all records of the VM go, or the footprint is
	// read anew.
	clearing sync.RWMutex

	mu       sync.Mutex
	used     map[string]Usage // of each bucket
	stored   footprint
	reserved map[string]int64 // by bucket: what writes in progress may add
	events   map[RuleOf]int   // that wait
}

// account returns a VM's account.
func (s *Store) account(vm gateway.ID) (*account, error) {
	if a := s.known(vm); a != nil {
		return a, nil
	}
	defer s.loading.lock(string(vm[:]))() // of this VM alone: it may take seconds after an update of Lodge
	if a := s.known(vm); a != nil {
		return a, nil
	}
	a, err := s.load(vm)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[vm] = a
	return a, nil
}

// known returns an account that was made, or nil.
func (s *Store) known(vm gateway.ID) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[vm]
}

// load reads a VM's account.
func (s *Store) load(vm gateway.ID) (*account, error) {
	a := &account{vm: vm, used: map[string]Usage{}, reserved: map[string]int64{}}
	if err := s.loadUsage(a); err != nil {
		return nil, err
	}
	stored, err := s.loadFootprint(vm)
	a.stored = stored
	events, failed := countEvents(s.index, vm)
	a.events = events
	if err := errors.Join(err, failed, s.loadSnapshots(a), s.loadProgress(a)); err != nil {
		return nil, err
	}
	return a, nil
}

// begin waits for the gate, and begins a commit that ends with a.commits.RUnlock. It goes on between the steps of a
// Drop. Errors: ErrHeld, ErrRemoved, ErrUnfinished.
func (a *account) begin() error {
	passed := a.gate.Pass(func() bool {
		a.commits.RLock()
		if a.gate.Held() {
			a.commits.RUnlock()
			return false
		}
		return true
	})
	if !passed {
		return ErrHeld
	}
	err := a.refuses()
	if err != nil {
		a.commits.RUnlock()
	}
	return err
}

// refuses returns why the VM takes no commits, or nil. The caller has locked commits.
func (a *account) refuses() error {
	switch {
	case a.removed:
		return ErrRemoved
	case a.mixed.Load():
		return ErrUnfinished
	}
	return nil
}

// alters returns why the VM takes no snapshot, and is no source or target of a fork, or nil. The caller has locked
// commits.
func (a *account) alters() error {
	if !a.removed && a.progress != nil {
		return ErrUnfinished
	}
	return a.refuses()
}

func (m sum) usage() (u Usage) {
	m = append(slices.Clip(m), make(sum, usageNumbers)...) // a sum without a later number has it as 0
	u.Bytes, u.Objects, u.Pending, u.Uploads, u.Overhead = m[0], m[1], m[2], m[3], m[4]
	return u
}

const usageNumbers = 5

func (u *Usage) encode() []byte {
	return encodeSum(u.Bytes, u.Objects, u.Pending, u.Uploads, u.Overhead)
}

func (u *Usage) add(d Usage) {
	u.Bytes += d.Bytes
	u.Objects += d.Objects
	u.Pending += d.Pending
	u.Uploads += d.Uploads
	u.Overhead += d.Overhead
}

// apply adds what a commit has changed, and ends the count of a bucket that it has deleted, which was empty.
func (a *account) apply(deltas map[string]Usage, stored footprint, ended string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored.add(stored)
	for bucket, d := range deltas {
		u := a.used[bucket]
		u.add(d)
		a.used[bucket] = u
	}
	delete(a.used, ended)
}

// uploads returns how many are in progress.
func (a *account) uploads() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.used {
		n += u.Uploads
	}
	return n
}

// buckets returns how many the VM has.
func (a *account) buckets() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.used)
}

// cleared calls commit, which removes all records of the VM, and ends the counts of it.
func (a *account) cleared(commit func() error) error {
	a.clearing.Lock()
	defer a.clearing.Unlock()
	if err := commit(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.snaps, a.progress, a.used, a.stored = nil, nil, map[string]Usage{}, footprint{}
	a.events = map[RuleOf]int{}
	a.setMixed(false)
	return nil
}

// reservation is room for one write, within the limits. Two writes cannot have the same room.
type reservation struct {
	a      *account
	bucket string
	limits Limits
	bytes  int64
}

// add reserves n more bytes, or returns a *QuotaError.
func (r *reservation) add(n int64) error {
	a := r.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.limits.VM > 0 {
		all := a.charged()
		for _, n := range a.reserved {
			all += n
		}
		if all+n > r.limits.VM {
			return &QuotaError{Limit: r.limits.VM, Used: all - r.bytes, Asks: r.bytes + n}
		}
	}
	u := a.used[r.bucket]
	if here := u.Charged() + a.reserved[r.bucket]; r.limits.Bucket > 0 && here+n > r.limits.Bucket {
		return &QuotaError{Bucket: r.bucket, Limit: r.limits.Bucket, Used: here - r.bytes, Asks: r.bytes + n}
	}
	r.bytes += n
	a.reserved[r.bucket] += n
	return nil
}

// end gives the room back: the write was committed, and counts itself, or has failed.
func (r *reservation) end() {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	if r.a.reserved[r.bucket] -= r.bytes; r.a.reserved[r.bucket] == 0 {
		delete(r.a.reserved, r.bucket)
	}
	r.bytes = 0
}

func (s *Store) loadSnapshots(a *account) error {
	prefix := vmKey(a.vm, kindSnapshot, 0)
	return each(s.index, prefix, func(key, name []byte) error {
		a.snaps = append(a.snaps, snapshot{numIn(key), string(name)})
		return nil
	})
}

// loadProgress reads what a crash has interrupted.
func (s *Store) loadProgress(a *account) error {
	v, err := value(s.index, vmKey(a.vm, kindProgress, 0))
	if err == nil {
		a.inProgress(v)
	}
	if missing(err) {
		return nil
	}
	return err
}

// Usage returns what a VM has stored, and of it each bucket.
func (s *Store) Usage(vm gateway.ID) (Usage, error) {
	a, err := s.account(vm)
	if err != nil {
		return Usage{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	all := Usage{Buckets: make(map[string]Usage, len(a.used))}
	for name, u := range a.used {
		all.Buckets[name] = u
		all.add(u)
	}
	all.Held = a.held(all)
	return all, nil
}

// bucketOf reads a bucket's record.
func bucketOf(r pebble.Reader, vm gateway.ID, name string) (*Bucket, error) {
	v, err := value(r, textKey(vm, kindBucket, name))
	if missing(err) {
		return nil, ErrNoBucket
	}
	if err != nil {
		return nil, err
	}
	b, err := decodeBucket(vm, name, v)
	return &b, err
}

// Waiting returns how many of a VM's commits wait for the end of a hold.
func (s *Store) Waiting(vm gateway.ID) int {
	a, err := s.account(vm)
	if err != nil {
		return 0
	}
	return a.gate.Waiting()
}
