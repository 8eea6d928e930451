package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"

	"lodge/gateway"
)

// The keys of Passkeys in gateway.Shared.
const (
	passkeysPrefix  = "passkeys/"   // passkeys/<person>: the person's passkeys, as JSON
	passkeyIDPrefix = "passkey-id/" // passkey-id/<SHA-256 of the ID>: whose it is, so that no two persons have one
)

// maxPasskeyID is the longest ID of a credential, in bytes (WebAuthn §4, Credential ID).
const maxPasskeyID = 1023

// Passkeys keeps the passkeys of persons by the persons' IDs. What a call changes is synced to disk
// when it returns.
type Passkeys struct{ shared gateway.Shared }

// Passkeys returns the part of the store that keeps passkeys.
func (s *Store) Passkeys() *Passkeys { return &Passkeys{s.shared} }

// Passkeys returns a person's passkeys, the oldest first.
func (p *Passkeys) Passkeys(ctx context.Context, person gateway.Principal) ([]gateway.Passkey, error) {
	all, _, err := p.read(ctx, person)
	return all, err
}

// AddPasskey stores a passkey of k.Person. Errors: KindTaken when a person has that ID already,
// KindConflict when the person has gateway.MaxPasskeys, KindInvalid for an ID that no credential has.
func (p *Passkeys) AddPasskey(ctx context.Context, k gateway.Passkey) error {
	if len(k.ID) == 0 || len(k.ID) > maxPasskeyID || k.Person == 0 {
		return gateway.Invalid("a passkey needs a person, and an ID of 1 to %d bytes", maxPasskeyID)
	}
	claim := gateway.Op{Key: passkeyIDKey(k.ID), Value: strconv.AppendUint(nil, uint64(k.Person), 10)}
	return p.change(ctx, k.Person, []gateway.Op{claim}, func(all []gateway.Passkey) ([]gateway.Passkey, error) {
		if len(all) >= gateway.MaxPasskeys {
			return nil, gateway.Errorf(gateway.KindConflict, "you have %d passkeys already", len(all)).WithHint("Remove one that you no longer use.")
		}
		return append(all, k), nil
	})
}

// ChangePasskey stores what change makes of a passkey; change may be called again if another caller was
// faster, and its error is returned. A missing passkey is KindNotFound. ID and Person stay.
func (p *Passkeys) ChangePasskey(ctx context.Context, person gateway.Principal, id []byte, change func(*gateway.Passkey) error) error {
	return p.change(ctx, person, nil, func(all []gateway.Passkey) ([]gateway.Passkey, error) {
		i := indexPasskey(all, id)
		if i < 0 {
			return nil, errNoPasskey()
		}
		k := all[i]
		err := change(&k)
		k.ID, k.Person = all[i].ID, all[i].Person
		all[i] = k
		return all, err
	})
}

// RemovePasskey removes a passkey. A missing one is KindNotFound.
func (p *Passkeys) RemovePasskey(ctx context.Context, person gateway.Principal, id []byte) error {
	release := gateway.Op{Key: passkeyIDKey(id), Delete: true}
	return p.change(ctx, person, []gateway.Op{release}, func(all []gateway.Passkey) ([]gateway.Passkey, error) {
		i := indexPasskey(all, id)
		if i < 0 {
			return nil, errNoPasskey()
		}
		return slices.Delete(all, i, i+1), nil
	})
}

// RemovePasskeys removes all passkeys of a person, who is being removed. To have none is no error.
func (p *Passkeys) RemovePasskeys(ctx context.Context, person gateway.Principal) error {
	for {
		all, rev, err := p.read(ctx, person)
		if err != nil || rev == 0 {
			return err
		}
		do := []gateway.Op{{Key: passkeysKey(person), Delete: true}}
		for _, k := range all {
			do = append(do, gateway.Op{Key: passkeyIDKey(k.ID), Delete: true})
		}
		_, err = p.shared.Commit(ctx, []gateway.Cond{{Key: passkeysKey(person), Rev: rev}}, do)
		if gateway.KindOf(err) != gateway.KindConflict {
			return err
		}
	}
}

// change stores what edit makes of a person's passkeys and carries out also, both or none. An operation
// of also that puts a key claims it.
func (p *Passkeys) change(ctx context.Context, person gateway.Principal, also []gateway.Op, edit func([]gateway.Passkey) ([]gateway.Passkey, error)) error {
	key := passkeysKey(person)
	for {
		all, rev, err := p.read(ctx, person)
		if err != nil {
			return err
		}
		still := []gateway.Cond{{Key: key, Rev: rev}}
		for _, op := range also {
			if op.Delete {
				continue
			}
			if _, err := p.shared.Get(ctx, op.Key); err == nil {
				return gateway.Errorf(gateway.KindTaken, "this passkey is registered already")
			} else if gateway.KindOf(err) != gateway.KindNotFound {
				return err
			}
			still = append(still, gateway.Cond{Key: op.Key})
		}
		if all, err = edit(all); err != nil {
			return err
		}
		value, err := json.Marshal(all)
		if err != nil {
			return err
		}
		_, err = p.shared.Commit(ctx, still, append([]gateway.Op{{Key: key, Value: value, Delete: len(all) == 0}}, also...))
		if gateway.KindOf(err) != gateway.KindConflict {
			return err
		}
	}
}

// read returns a person's passkeys and the revision of their last change, which is 0 without any.
func (p *Passkeys) read(ctx context.Context, person gateway.Principal) ([]gateway.Passkey, gateway.Revision, error) {
	entry, err := p.shared.Get(ctx, passkeysKey(person))
	if gateway.KindOf(err) == gateway.KindNotFound && err != nil {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var all []gateway.Passkey
	if err := json.Unmarshal(entry.Value, &all); err != nil {
		return nil, 0, errCorrupt
	}
	return all, entry.Rev, nil
}

func indexPasskey(all []gateway.Passkey, id []byte) int {
	return slices.IndexFunc(all, func(k gateway.Passkey) bool { return bytes.Equal(k.ID, id) })
}

func passkeysKey(person gateway.Principal) string {
	return passkeysPrefix + strconv.FormatUint(uint64(person), 10)
}

func passkeyIDKey(id []byte) string {
	hash := sha256.Sum256(id)
	return passkeyIDPrefix + hex.EncodeToString(hash[:])
}

func errNoPasskey() error {
	return gateway.Errorf(gateway.KindNotFound, "there is no such passkey").WithHint("It was removed.")
}
