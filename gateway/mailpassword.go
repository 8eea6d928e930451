package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"time"
)

// MaxMailPasswords is the largest number of passwords for a VM's mail.
const MaxMailPasswords = 20

// MailPassword is what is kept of a password that opens a VM's mail from outside, by IMAP.
type MailPassword struct {
	Label string    `json:"label"` // unique in the VM
	Hash  []byte    `json:"hash"`  // see HashMailPassword; a password of random bits needs no slow hash
	Made  time.Time `json:"made"`
	By    Principal `json:"by"` // who made it; it opens the mail while they may manage the VM
}

// NewMailPassword makes a password: 130 random bits in base 32, in groups.
func NewMailPassword() string {
	text := strings.ToLower(rand.Text())
	var groups []string
	for ; len(text) > 4; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(append(groups, text), "-")
}

// HashMailPassword returns what is kept of a password. Case, spaces and dashes make no difference.
func HashMailPassword(password string) []byte {
	plain := strings.NewReplacer("-", "", " ", "").Replace(strings.ToLower(password))
	sum := sha256.Sum256([]byte(plain))
	return sum[:]
}

// MailPassword returns the password of the VM that is the one given. It takes the same time whatever the VM
// has, and if there is no VM: m is the zero VM then.
func (m VM) MailPassword(password string) (found MailPassword, ok bool) {
	hash := HashMailPassword(password)
	for i := range MaxMailPasswords {
		kept := MailPassword{Hash: make([]byte, len(hash))}
		if i < len(m.Mail.Passwords) {
			kept = m.Mail.Passwords[i]
		}
		if subtle.ConstantTimeCompare(kept.Hash, hash) == 1 {
			found, ok = kept, true
		}
	}
	return found, ok
}
