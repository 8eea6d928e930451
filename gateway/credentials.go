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

// The limits of the life of keys for outside.
const (
	MinS3KeyLife = time.Minute
	MaxS3KeyLife = 7 * 24 * time.Hour // as long as a presigned URL can be valid
)

// The content of an access key is 16 bytes ID, 4 incarnation, 4 expiry in Unix seconds, big endian. One
// for outside has the VM's epoch in place of the incarnation, and 8 bytes of who made it besides.
const (
	claimBytes   = 24
	outsideBytes = claimBytes + 8
)

// Credentials are S3 credentials for one VM in one incarnation (the shape of the EC2 instance
// metadata answer).
type Credentials struct {
	AccessKey string
	SecretKey string
	Expires   time.Time
}

// S3Key is what an access key stands for, once the caller has verified a signature by its secret.
type S3Key struct {
	VM      Identity
	Secret  string
	Outside bool      // it is for the public names alone; else for the VM's tap and the host's socket
	By      Principal // who made it, of one for outside: it is worth what they may do
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
	return k.issue(m.ID, m.Incarnation, now.Add(CredentialLife), nil), nil
}

// IssueOutside makes credentials for a VM's objects at the public names, for as long as life. They
// outlive restarts of the VM, and end with it, with the next change of its S3Settings.KeyEpoch, and
// when by may no longer use the VM. A VM that is removed is KindNotFound.
func (k *Keyring) IssueOutside(id ID, by Principal, life time.Duration, now time.Time) (Credentials, error) {
	m, ok := k.dir.ByID(id)
	if !ok || m.Desired == Removed {
		return Credentials{}, Errorf(KindNotFound, "the VM is gone")
	}
	return k.issue(m.ID, m.S3.KeyEpoch, now.Add(life), binary.BigEndian.AppendUint64(nil, uint64(by))), nil
}

func (k *Keyring) issue(id ID, count uint32, expires time.Time, rest []byte) Credentials {
	expires = expires.UTC().Truncate(time.Second)
	claim := make([]byte, 0, outsideBytes)
	claim = append(claim, id[:]...)
	claim = binary.BigEndian.AppendUint32(claim, count)
	claim = binary.BigEndian.AppendUint32(claim, uint32(expires.Unix())) //nolint:gosec // until 2106
	access := accessKey(append(claim, rest...))
	return Credentials{AccessKey: access, SecretKey: k.secretFor(access), Expires: expires}
}

// IsAccessKey reports whether access has the shape of a key that Issue makes.
func IsAccessKey(access string) bool { return strings.HasPrefix(access, accessPrefix) }

// Check returns what an access key stands for. The caller verifies the signature with its secret, and
// that the one who made a key for outside may still use the VM. KindDenied: the key is unknown, expired
// or revoked, or its VM is removed.
func (k *Keyring) Check(access string, now time.Time) (S3Key, error) {
	claim, err := encoding().DecodeString(strings.TrimPrefix(access, accessPrefix))
	outside := len(claim) == outsideBytes
	if err != nil || len(claim) != claimBytes && !outside || access != accessKey(claim) { // base32 alone accepts spare bits and line ends
		return S3Key{}, Errorf(KindDenied, "unknown access key")
	}
	m, ok := k.dir.ByID(ID(claim[:16]))
	count := binary.BigEndian.Uint32(claim[16:])
	switch {
	case !ok || m.Desired == Removed:
		return S3Key{}, Errorf(KindDenied, "the access key is of a VM that is gone")
	case !outside && m.Incarnation != count:
		return S3Key{}, Errorf(KindDenied, "the access key expired when the VM was started again")
	case outside && m.S3.KeyEpoch != count:
		return S3Key{}, Errorf(KindDenied, "the access key was revoked")
	case now.Unix() >= int64(binary.BigEndian.Uint32(claim[20:])):
		return S3Key{}, Errorf(KindDenied, "the access key has expired")
	}
	key := S3Key{VM: m.Identity, Secret: k.secretFor(access), Outside: outside}
	if outside {
		key.By = Principal(binary.BigEndian.Uint64(claim[claimBytes:]))
	}
	return key, nil
}

func (k *Keyring) secretFor(access string) string {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte("s3 secret\x00" + access))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func accessKey(claim []byte) string { return accessPrefix + encoding().EncodeToString(claim) }

func encoding() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }
