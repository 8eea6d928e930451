// Package issuer makes the host an issuer of OpenID Connect, so that a VM can prove elsewhere which
// VM it is: by a signed token, for one audience, that is valid for minutes.
//
// A token is signed with the host's key, which never leaves the host. Relying parties get the public
// keys from the issuer's own URL (OpenID Connect Discovery 1.0). Keys are made at the first use and
// replaced every 30 days. A new one is published a day before it signs, and the old one until no
// token of it is valid and no cache lacks the new one.
//
// It never decides which VM is asking, and never logs a token.
package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// Limits on what a VM can ask for.
const (
	DefaultLifetime  = 10 * time.Minute
	MaxLifetime      = time.Hour
	MaxAudienceBytes = 255
)

// ErrTooMany is the error for a VM that asks too often; a second later it gets some again.
var ErrTooMany = errors.New("too many tokens")

// RetryAfter is the wait after a key could not be stored.
const RetryAfter = time.Minute

// Config is what an Issuer needs. Every field is required.
type Config struct {
	URL    string // the issuer, such as https://example.com: the same for all who read a token
	Dir    string // directory of the keys
	Host   string // name of this machine, for the tokens
	Logger *slog.Logger
}

// Issuer signs tokens. It is safe for concurrent use.
type Issuer struct {
	Config
	now       func() time.Time
	discovery []byte // the document of OpenID Connect Discovery
	rates     *limit.Rates[gateway.ID]
	tokens    *prometheus.CounterVec // by result

	current atomic.Pointer[published] // nil before the first use
	change  sync.Mutex                // guards what is below
	keys    []key                     // as on disk, oldest first
	spare   *key                      // was made, but could not be stored
	failed  failure
}

// published is what is used until a key has to change.
type published struct {
	from, until time.Time
	signer      key
	set         []byte // the JWK Set
}

// failure is the last error of making the first key. It stands for a while, because each attempt
// writes to the disk, and strangers cause attempts.
type failure struct {
	err         error
	from, until time.Time
}

// New returns an Issuer with the keys of an earlier one in the same directory. A damaged file is an
// error.
func New(config Config) (*Issuer, error) {
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	keys, err := readKeys(config.Dir)
	if err != nil {
		return nil, err
	}
	return &Issuer{
		Config: config, now: time.Now, discovery: discovery(config.URL), keys: keys, tokens: newCounter(),
		rates: limit.NewRates[gateway.ID](perSecond, burst),
	}, nil
}

// Token is a signed JSON Web Token.
type Token struct {
	JWT     string
	Expires time.Time
}

// Issue returns a token for vm, which must be the VM at the other end of the connection. A lifetime
// of 0 is DefaultLifetime. Errors: KindInvalid for an audience or a lifetime that is not possible,
// ErrTooMany, and others, which it has logged, while there is no key.
func (i *Issuer) Issue(ctx context.Context, vm gateway.VM, audience string, lifetime time.Duration) (Token, error) {
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	if err := errors.Join(checkAudience(audience), checkLifetime(lifetime)); err != nil {
		return Token{}, err
	}
	if !i.rates.Take(vm.ID, i.now()) {
		i.tokens.WithLabelValues(resultRefused).Inc()
		return Token{}, ErrTooMany
	}
	p, err := i.publish()
	if err != nil {
		i.tokens.WithLabelValues(resultFailed).Inc()
		return Token{}, err
	}
	issued := i.now().UTC().Truncate(time.Second)
	id := rand.Text()
	token := Token{Expires: issued.Add(lifetime)}
	if token.JWT, err = p.signer.sign(i.claims(vm, audience, id, issued, token.Expires)); err != nil {
		i.tokens.WithLabelValues(resultFailed).Inc()
		i.Logger.ErrorContext(ctx, "identity token not signed", "err", err)
		return Token{}, err
	}
	i.tokens.WithLabelValues(resultIssued).Inc()
	i.Logger.With(gateway.LogVM(vm.Identity)).InfoContext(ctx, "identity token issued", "audience", audience, "jti", id)
	return token, nil
}

func checkAudience(audience string) error {
	if audience == "" || len(audience) > MaxAudienceBytes {
		return gateway.Invalid("an audience of %d bytes; 1 to %d are possible", len(audience), MaxAudienceBytes)
	}
	for _, c := range []byte(audience) {
		if c <= ' ' || c > '~' {
			return gateway.Invalid("the audience %q has other characters than printable ASCII without spaces", audience)
		}
	}
	return nil
}

func checkLifetime(lifetime time.Duration) error {
	if lifetime < time.Second || lifetime > MaxLifetime {
		return gateway.Invalid("a lifetime of %v; 1 s to %v are possible", lifetime, MaxLifetime)
	}
	return nil
}

// Remove removes what is kept for a VM.
func (i *Issuer) Remove(_ context.Context, id gateway.ID) error {
	i.rates.Remove(id)
	return nil
}

// publish returns the keys of now. It makes, stores or drops one if it is time. While another caller
// does that, those who have keys use them.
func (i *Issuer) publish() (*published, error) {
	now := i.now().Round(0) // times on disk have no monotonic part
	p := i.current.Load()
	if p.covers(now) {
		return p, nil
	}
	if !i.change.TryLock() {
		if p != nil {
			return p, nil
		}
		i.change.Lock()
	}
	defer i.change.Unlock()
	if p = i.current.Load(); p.covers(now) {
		return p, nil
	}
	if i.failed.err != nil && !now.Before(i.failed.from) && now.Before(i.failed.until) {
		return nil, i.failed.err
	}
	p, err := i.advance(now)
	i.failed = failure{err, now, now.Add(RetryAfter)}
	if err != nil {
		return nil, err
	}
	i.current.Store(p)
	return p, nil
}

// covers reports whether p holds at now. A clock that was set back ends it too.
func (p *published) covers(now time.Time) bool {
	return p != nil && !now.Before(p.from) && now.Before(p.until)
}

// advance brings the keys to their state at now, on disk first. If that fails, those on disk stay in
// use for RetryAfter. The caller holds i.change.
func (i *Issuer) advance(now time.Time) (*published, error) {
	keys, changed, err := step(i.keys, now, i.fresh)
	if err == nil && changed {
		err = writeKeys(i.Dir, keys)
	}
	if err != nil {
		i.Logger.Error("signing keys not stored", "err", err)
		if len(i.keys) == 0 {
			return nil, err
		}
		return newPublished(i.keys, now, now.Add(RetryAfter)), nil
	}
	i.keys, i.spare = keys, nil
	return newPublished(keys, now, nextStep(keys, now)), nil
}

// fresh returns a new key. One that could not be stored is used again: on a full disk, the attempts
// cost no CPU.
func (i *Issuer) fresh() (key, error) {
	if i.spare == nil {
		made, err := newKey()
		if err != nil {
			return key{}, err
		}
		i.spare = &made
	}
	return *i.spare, nil
}

func newPublished(keys []key, now, until time.Time) *published {
	return &published{from: now, until: until, signer: signer(keys, now), set: keySet(keys)}
}
