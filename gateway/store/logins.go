package store

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
)

// secretPrefix is that of the keys of Logins in gateway.Shared: secret/<SHA-256 in hex>/<kind>.
const secretPrefix = "secret/"

// sweepEvery is how often PutSecret removes what has expired.
const sweepEvery = time.Minute

// Logins keeps secrets of limited life (one-time links, sessions, tokens) by their SHA-256, so the file
// does not contain them. Whose they are and when they expire is in memory too: a wrong secret costs no
// look into the file.
type Logins struct {
	shared gateway.Shared
	now    func() time.Time
	swept  time.Time // guarded by write

	write sync.Mutex // held while file and memory change together
	mu    sync.RWMutex
	held  map[gateway.SecretKey]held
	sums  map[owner]int
	all   map[gateway.Principal]int // of all kinds
}

// held is what is in memory of a secret.
type held struct {
	vm      gateway.ID
	person  gateway.Principal
	expires int64 // Unix seconds
}

// owner is whose secrets of one kind are counted.
type owner struct {
	person gateway.Principal
	kind   string
}

// openLogins reads which secrets there are, a part at a time: there may be many.
func openLogins(ctx context.Context, shared gateway.Shared, now func() time.Time) (*Logins, error) {
	l := &Logins{shared: shared, now: now, held: map[gateway.SecretKey]held{}, sums: map[owner]int{}, all: map[gateway.Principal]int{}}
	kinds := map[string]string{} // one string of each
	const digits = "0123456789abcdef"
	for i, digit := range digits {
		entries, _, err := shared.List(ctx, secretPrefix+string(digit))
		if err != nil {
			return nil, err
		}
		if i == 0 { // hashes are spread evenly
			l.held = make(map[gateway.SecretKey]held, len(entries)*len(digits))
		}
		for _, entry := range entries {
			key, err := parseSecretKey(entry.Key)
			if err != nil {
				return nil, err
			}
			secret, err := decodeSecret(entry.Value)
			if err != nil {
				return nil, err
			}
			if kinds[key.Kind] == "" {
				kinds[key.Kind] = strings.Clone(key.Kind)
			}
			key.Kind = kinds[key.Kind]
			l.add(key, secret)
		}
	}
	return l, nil
}

// Logins returns the part of the store that keeps logins.
func (s *Store) Logins() *Logins { return s.logins }

// PutSecret keeps what a secret grants until it expires, in place of an earlier one with the key. At a
// limit another one makes room, the first to expire: of the same person and kind at
// gateway.MaxSecretsOfPerson, of the person who has the most of all kinds at gateway.MaxSecrets. That one is
// returned.
func (l *Logins) PutSecret(ctx context.Context, key gateway.SecretKey, secret gateway.Secret) (displaced gateway.Displaced, err error) {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.sweep(ctx); err != nil {
		return displaced, err
	}
	do := []gateway.Op{{Key: secretKey(key), Value: encodeSecret(secret)}}
	oldest, over := l.room(key, secret.Person)
	if over {
		do = append(do, gateway.Op{Key: secretKey(oldest), Delete: true})
	}
	if _, err := l.shared.Commit(ctx, nil, do); err != nil {
		return displaced, err
	}
	if over {
		h := l.drop(oldest)
		displaced = gateway.Displaced{Key: oldest, VM: h.vm, Person: h.person}
	}
	l.add(key, secret)
	return displaced, nil
}

// room finds what has to go for a new secret of a person.
func (l *Logins) room(key gateway.SecretKey, person gateway.Principal) (oldest gateway.SecretKey, over bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch _, have := l.held[key]; {
	case have:
		return oldest, false
	case person != 0 && l.sums[owner{person, key.Kind}] >= gateway.MaxSecretsOfPerson:
		return l.oldest(func(k gateway.SecretKey, h held) bool { return h.person == person && k.Kind == key.Kind }), true
	case len(l.held) >= gateway.MaxSecrets:
		most := l.greediest()
		return l.oldest(func(_ gateway.SecretKey, h held) bool { return h.person == most }), true
	}
	return oldest, false
}

// oldest is, of those for which which is true, the first to expire. The caller holds l.mu.
func (l *Logins) oldest(which func(gateway.SecretKey, held) bool) (oldest gateway.SecretKey) {
	first := int64(math.MaxInt64)
	for key, h := range l.held {
		if h.expires < first && which(key, h) {
			oldest, first = key, h.expires
		}
	}
	return oldest
}

// greediest is the person who has the most. The caller holds l.mu.
func (l *Logins) greediest() (most gateway.Principal) {
	n := 0
	for person, has := range l.all {
		if has > n {
			most, n = person, has
		}
	}
	return most
}

// LookSecret reads a secret. A missing one, and one that has expired at now, is KindNotFound.
func (l *Logins) LookSecret(ctx context.Context, key gateway.SecretKey, now time.Time) (gateway.Secret, error) {
	secret, _, err := l.look(ctx, key, now)
	return secret, err
}

func (l *Logins) look(ctx context.Context, key gateway.SecretKey, now time.Time) (gateway.Secret, gateway.Revision, error) {
	l.mu.RLock()
	_, ok := l.held[key]
	l.mu.RUnlock()
	if !ok {
		return gateway.Secret{}, 0, errNoSecret()
	}
	entry, err := l.shared.Get(ctx, secretKey(key))
	if err != nil {
		return gateway.Secret{}, 0, err
	}
	secret, err := decodeSecret(entry.Value)
	if err == nil && !now.Before(secret.Expires) {
		err = errNoSecret()
	}
	if err != nil {
		return gateway.Secret{}, 0, err
	}
	return secret, entry.Rev, nil
}

// ChangeSecret reads a secret and changes it or, if keep is false, removes it, in one step: of any number
// of callers that remove it exactly one gets it, all others KindNotFound. An error of change ends it; a
// nil change removes it. It returns the secret as it was before.
func (l *Logins) ChangeSecret(ctx context.Context, key gateway.SecretKey, now time.Time, change func(*gateway.Secret) (keep bool, err error)) (gateway.Secret, error) {
	l.write.Lock()
	defer l.write.Unlock()
	secret, rev, err := l.look(ctx, key, now)
	if err != nil {
		return gateway.Secret{}, err
	}
	changed, keep := secret, false
	if change != nil {
		if keep, err = change(&changed); err != nil {
			return gateway.Secret{}, err
		}
	}
	op := gateway.Op{Key: secretKey(key), Delete: true}
	if keep {
		op = gateway.Op{Key: op.Key, Value: encodeSecret(changed)}
	}
	_, err = l.shared.Commit(ctx, []gateway.Cond{{Key: op.Key, Rev: rev}}, []gateway.Op{op})
	if gateway.KindOf(err) == gateway.KindConflict { // another caller was first
		err = errNoSecret()
	}
	if err != nil {
		return gateway.Secret{}, err
	}
	if keep {
		l.add(key, changed)
	} else {
		l.drop(key)
	}
	return secret, nil
}

// ListSecrets reads those of a set that have not expired at now.
func (l *Logins) ListSecrets(ctx context.Context, of gateway.SecretsOf, now time.Time) (map[gateway.SecretKey]gateway.Secret, error) {
	all := map[gateway.SecretKey]gateway.Secret{}
	for _, key := range l.keys(selects(of)) {
		secret, err := l.LookSecret(ctx, key, now)
		if gateway.KindOf(err) == gateway.KindNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[key] = secret
	}
	return all, nil
}

// RemoveSecrets removes a set of secrets.
func (l *Logins) RemoveSecrets(ctx context.Context, of gateway.SecretsOf) error {
	l.write.Lock()
	defer l.write.Unlock()
	return l.remove(ctx, l.keys(selects(of)))
}

// sweep removes expired secrets, if that was not done a moment ago. The caller holds l.write.
func (l *Logins) sweep(ctx context.Context) error {
	now := l.now()
	if now.Sub(l.swept) < sweepEvery {
		return nil
	}
	if err := l.remove(ctx, l.keys(func(_ gateway.SecretKey, h held) bool { return h.expires <= now.Unix() })); err != nil {
		return err
	}
	l.swept = now
	return nil
}

// remove removes secrets from file and memory. The caller holds l.write.
func (l *Logins) remove(ctx context.Context, keys []gateway.SecretKey) error {
	do := make([]gateway.Op, len(keys))
	for i, key := range keys {
		do[i] = gateway.Op{Key: secretKey(key), Delete: true}
	}
	if err := commitAll(ctx, l.shared, do); err != nil {
		return err // those that are gone from the file are looked for in vain until the next sweep
	}
	for _, key := range keys {
		l.drop(key)
	}
	return nil
}

// keys returns those for which which is true.
func (l *Logins) keys(which func(gateway.SecretKey, held) bool) (all []gateway.SecretKey) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for key, h := range l.held {
		if which(key, h) {
			all = append(all, key)
		}
	}
	return all
}

func selects(of gateway.SecretsOf) func(gateway.SecretKey, held) bool {
	return func(key gateway.SecretKey, h held) bool {
		return (of.Kind == "" || of.Kind == key.Kind) && (of.VM == gateway.ID{} || of.VM == h.vm) && (of.Person == 0 || of.Person == h.person)
	}
}

func (l *Logins) add(key gateway.SecretKey, secret gateway.Secret) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(key, -1)
	l.held[key] = held{secret.VM, secret.Person, secret.Expires.Unix()}
	l.count(key, 1)
}

// drop returns what it removes.
func (l *Logins) drop(key gateway.SecretKey) held {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[key]
	l.count(key, -1)
	delete(l.held, key)
	return h
}

// count counts a secret, if it is there, as one more or less of its person. The caller holds l.mu.
func (l *Logins) count(key gateway.SecretKey, n int) {
	h, ok := l.held[key]
	if !ok {
		return
	}
	if l.all[h.person] += n; l.all[h.person] == 0 {
		delete(l.all, h.person)
	}
	whose := owner{h.person, key.Kind}
	if l.sums[whose] += n; l.sums[whose] == 0 {
		delete(l.sums, whose)
	}
}

func errNoSecret() error {
	return gateway.Errorf(gateway.KindNotFound, "the secret is used or expired")
}

func secretKey(key gateway.SecretKey) string {
	return secretPrefix + hex.EncodeToString(key.Hash[:]) + "/" + key.Kind
}

func parseSecretKey(text string) (key gateway.SecretKey, err error) {
	digits, kind, ok := strings.Cut(strings.TrimPrefix(text, secretPrefix), "/")
	if !ok || len(digits) != hex.EncodedLen(len(key.Hash)) {
		return key, errCorrupt
	}
	if _, err := hex.Decode(key.Hash[:], []byte(digits)); err != nil {
		return key, errCorrupt
	}
	key.Kind = kind
	return key, nil
}

// secretHead is the length of what is in front of a secret's data: the VM's UUID, the person and the
// expiry in Unix seconds, 8 bytes each and big endian.
const secretHead = 32

func encodeSecret(s gateway.Secret) []byte {
	value := append(make([]byte, 0, secretHead+len(s.Data)), s.VM[:]...)
	value = binary.BigEndian.AppendUint64(value, uint64(s.Person))
	value = binary.BigEndian.AppendUint64(value, uint64(s.Expires.Unix()))
	return append(value, s.Data...)
}

func decodeSecret(value []byte) (gateway.Secret, error) {
	if len(value) < secretHead {
		return gateway.Secret{}, errCorrupt
	}
	return gateway.Secret{
		VM: gateway.ID(value[:16]), Person: gateway.Principal(binary.BigEndian.Uint64(value[16:])),
		Expires: time.Unix(int64(binary.BigEndian.Uint64(value[24:])), 0), Data: string(value[secretHead:]),
	}, nil
}
