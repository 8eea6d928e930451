package gateway

import "time"

// Secret is what Lodge keeps of a secret that somebody holds: a login link, a session, a token. Of the
// secret itself it keeps the SHA-256.
type Secret struct {
	VM      ID        // the one for which it is valid
	Person  Principal // whose it is; 0: nobody's
	Data    string    // what else its kind needs
	Expires time.Time // in seconds
}

// SecretKey identifies a Secret. One secret may be of several kinds.
type SecretKey struct {
	Kind string
	Hash [32]byte
}

// Displaced is a secret that was removed to make room for another one. The zero Displaced is none.
type Displaced struct {
	Key    SecretKey
	VM     ID
	Person Principal
}

// SecretsOf selects secrets: those of a kind, of a VM, of a person. A zero field selects all.
type SecretsOf struct {
	Kind   string
	VM     ID
	Person Principal
}

// Limits on what is kept of secrets.
const (
	MaxSecrets         = 100_000 // in all: the first to expire of the person who has the most makes room
	MaxSecretsOfPerson = 1_000   // of one kind: the one that expires first makes room for the next
)
