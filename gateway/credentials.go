package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// CredentialLife is how long S3 credentials live; SDKs fetch new ones some minutes before.
const CredentialLife = 6 * time.Hour

// accessPrefix begins the access keys that Issue makes. Other keys are placeholders for SDKs that
// need one.
const accessPrefix = "LODGE"

// claimBytes is the length of an access key's content: 16 bytes ID, 4 incarnation, 4 expiry in Unix
// seconds, big endian.
const claimBytes = 24

// Credentials are S3 credentials for one VM in one incarnation (the shape of the EC2 instance
// metadata answer).
type Credentials struct {
	AccessKey string
	SecretKey string
	Expires   time.Time
}

// Keyring issues and checks S3 credentials. The access key contains the VM, its incarnation and the
// expiry. Its secret is an HMAC-SHA256 of it, so only the host's one secret is stored.
type Keyring struct {
	secret [32]byte
	dir    *Directory
}

// NewKeyring uses the host's secret: 32 random bytes from the store, made once.
func NewKeyring(secret [32]byte, dir *Directory) *Keyring { return &Keyring{secret: secret, dir: dir} }

// Issue makes credentials for a VM in its present incarnation. A VM that is removed is
// KindNotFound.
func (k *Keyring) Issue(id ID, now time.Time) (Credentials, error) {
	m, ok := k.dir.ByID(id)
	if !ok || m.Desired == Removed {
		return Credentials{}, Errorf(KindNotFound, "the VM is gone")
	}
	expires := now.Add(CredentialLife).UTC().Truncate(time.Second)
	claim := make([]byte, 0, claimBytes)
	claim = append(claim, id[:]...)
	claim = binary.BigEndian.AppendUint32(claim, m.Incarnation)
	claim = binary.BigEndian.AppendUint32(claim, uint32(expires.Unix())) //nolint:gosec // until 2106
	access := accessKey(claim)
	return Credentials{AccessKey: access, SecretKey: k.secretFor(access), Expires: expires}, nil
}

// IsAccessKey reports whether access has the shape of a key that Issue makes.
func IsAccessKey(access string) bool { return strings.HasPrefix(access, accessPrefix) }

// Check returns the VM and the secret of an access key. The caller verifies the signature with that
// secret. KindDenied: the key is unknown, expired or of an earlier incarnation, or its VM is
// removed.
func (k *Keyring) Check(access string, now time.Time) (Identity, string, error) {
	claim, err := encoding().DecodeString(strings.TrimPrefix(access, accessPrefix))
	if err != nil || len(claim) != claimBytes || access != accessKey(claim) { // base32 alone accepts spare bits and line ends
		return Identity{}, "", Errorf(KindDenied, "unknown access key")
	}
	m, ok := k.dir.ByID(ID(claim[:16]))
	switch {
	case !ok || m.Desired == Removed:
		return Identity{}, "", Errorf(KindDenied, "the access key is of a VM that is gone")
	case m.Incarnation != binary.BigEndian.Uint32(claim[16:]):
		return Identity{}, "", Errorf(KindDenied, "the access key expired when the VM was started again")
	case now.Unix() >= int64(binary.BigEndian.Uint32(claim[20:])):
		return Identity{}, "", Errorf(KindDenied, "the access key has expired")
	}
	return m.Identity, k.secretFor(access), nil
}

func (k *Keyring) secretFor(access string) string {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte("s3 secret\x00" + access))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func accessKey(claim []byte) string { return accessPrefix + encoding().EncodeToString(claim) }

func encoding() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }
