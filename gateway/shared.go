package gateway

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Shared is the small ordered map that all hosts agree on: names, addresses and numbers of VMs,
// certificates, logins, secrets. On one host it is SQLite (gateway/store). gateway/store/storetest
// holds every implementation against this contract.
//
// Vocabulary:
//   - An Entry is a key with its value. A key is 1 to MaxKeyBytes bytes of UTF-8 without NUL. Keys
//     sort by their bytes.
//   - A Revision counts the Commits that changed something. It never falls, and survives a restart.
//   - An Entry's revision is that of its last change. A key that was deleted and made again has a
//     higher one.
//   - A Lease has a life. When it ends, its keys are deleted in one change that Watch reports like
//     any other.
//
// Concurrency: all methods are safe for concurrent use, by any number of goroutines and hosts.
// Reads and Commits are linearizable: a read sees every Commit that returned before the read began,
// on whichever host.
//
// Blocking: every method but Watch returns when the store has answered or ctx has ended. A Commit
// returns nil only when its changes are synced to disk. A read may cost a round trip: what every
// request needs is better kept as a copy, by List and Watch.
//
// Errors: KindNotFound, KindConflict and KindInvalid as below; then nothing was changed.
// KindNoSpace: the disk is full. KindUnavailable: the store does not answer. After any other error
// of Commit, ctx's included, its outcome is unknown: read again.
type Shared interface {
	// Get reads one entry. A missing key is KindNotFound.
	Get(ctx context.Context, key string) (Entry, error)

	// List reads the entries whose keys have a prefix, sorted by key, all as of one Revision. A
	// Watch after that Revision continues without a gap. The empty prefix lists everything.
	List(ctx context.Context, prefix string) ([]Entry, Revision, error)

	// Commit carries out all operations, as one change with one Revision, if all conditions hold;
	// else none (KindConflict). KindInvalid: more than MaxCommitOps of either, more than
	// MaxCommitBytes in keys and values, a bad key, or a key twice in one of the lists.
	// KindNotFound: a Lease has ended. Without operations it only checks the conditions.
	Commit(ctx context.Context, still []Cond, do []Op) (Revision, error)

	// Watch yields each change to keys with a prefix once, in the order of revisions, beginning
	// with the first one after the given Revision; it waits for further ones. It ends with an
	// error: ctx's, ErrCompacted, or that of the store. Changes of one Commit share a revision: to
	// resume after a loop that ended amid them, begin after the revision before.
	Watch(ctx context.Context, prefix string, after Revision) iter.Seq2[Event, error]

	// Lease begins a lease. It ends by End, or at the earliest one life, of at least a second,
	// after the last KeepAlive began that succeeded. It may end somewhat later, and lasts a whole
	// life more after the store itself has restarted.
	Lease(ctx context.Context, life time.Duration) (Lease, error)
}

// Revision is a point in the history of a Shared. 0 is before everything.
type Revision int64

// Limits of a Shared. They are below those of etcd, so that any store can hold them.
const (
	MaxKeyBytes    = 512
	MaxCommitOps   = 100
	MaxCommitBytes = 1 << 20
)

// ErrCompacted ends a Watch whose Revision is too old: the changes since are no longer all kept.
// List again, and Watch from there.
var ErrCompacted = errors.New("the changes since that revision are no longer kept")

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte
	Rev   Revision // of the last change; a later holder of a key has a higher one, so it serves as a fencing token
}

// Cond is a condition of a Commit: the entry's last change is still that Revision. 0: there is no
// such key.
type Cond struct {
	Key string
	Rev Revision
}

// Op is one operation of a Commit: put the value, or delete the key. Deleting a missing key is no
// error and no change.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
	Lease  LeaseID // the key is deleted when this lease ends; 0: none, and an earlier lease no longer holds the key
}

// Event is one change. Of a deletion it has the key and the Revision, and no value.
type Event struct {
	Entry
	Deleted bool
}

// LeaseID names a Lease in an Op.
type LeaseID int64

// Lease keeps keys for as long as it is kept alive.
type Lease interface {
	ID() LeaseID
	// KeepAlive begins the life anew. KindNotFound: the lease has ended, and its keys are deleted.
	KeepAlive(ctx context.Context) error
	// End deletes the keys of the lease now. To end it twice is no error.
	End(ctx context.Context) error
}
