package issuer

import (
	"slices"
	"time"
)

// The times of a key's life. All are of the wall clock, since they outlast the daemon.
const (
	// period is how long a key signs.
	period = 30 * 24 * time.Hour
	// lead is how long a key is published before it signs. It is far more than cacheLife, since relying
	// parties cache longer than they are told to.
	lead = 24 * time.Hour
	// trail is how long a key is published after it has signed for the last time: until its last token
	// has expired, and once more as long as caches are given to see the next key.
	trail = MaxLifetime + lead
	// cacheLife is how long relying parties may cache the keys (RFC 9111 §5.2.2.1).
	cacheLife = time.Hour
)

// step returns the keys, oldest first, as they should be at now, and whether that is a change. It is
// called late where nobody needs a key: any number of steps may be due.
func step(keys []key, now time.Time, fresh func() (key, error)) (next []key, changed bool, err error) {
	next = slices.Clone(keys)
	for i := range next {
		// The clock was ahead when the key was made: without this, the key before it would sign until
		// that time comes.
		if latest := now.Add(lead); next[i].signs.After(latest) {
			next[i].signs, changed = latest.Truncate(time.Second), true
		}
	}
	for len(next) > 1 && !now.Before(next[1].signs.Add(trail)) {
		next, changed = next[1:], true
	}
	if len(next) > 0 && now.Before(next[len(next)-1].signs.Add(period)) {
		return next, changed, nil
	}
	made, err := fresh()
	if err != nil {
		return nil, false, err
	}
	made.signs = now.Truncate(time.Second)
	if len(next) > 0 {
		made.signs = made.signs.Add(lead)
	}
	return append(next, made), true, nil
}

// nextStep returns when the keys change again, or another one signs.
func nextStep(keys []key, now time.Time) time.Time {
	at := keys[len(keys)-1].signs.Add(period)
	for i, k := range keys {
		for _, event := range []time.Time{k.signs, k.signs.Add(trail)} {
			if i > 0 && event.After(now) && event.Before(at) {
				at = event
			}
		}
	}
	return at
}

// signer returns the key that signs at now: the newest whose time has come. The oldest signs also
// before its time, when the clock was set back.
func signer(keys []key, now time.Time) key {
	for _, k := range slices.Backward(keys) {
		if !k.signs.After(now) {
			return k
		}
	}
	return keys[0]
}
