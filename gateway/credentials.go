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

// accessPrefix marks access keys of ours. Keys of other shapes are dummies.
const accessPrefix = "LODGE"

// claimBytes is what an access key says: 16 bytes ID, 4 incarnation, 4 expiry in Unix seconds, big endian.
const claimBytes = 24

// Credentials are S3 credentials for one VM in one incarnation (the shape of the EC2 instance metadata answer).
type Credentials struct {
	AccessKey string
	SecretKey string
	Expires   time.Time
}

// Keyring mints and checks S3 credentials. The access key itself names the VM, its incarnation and the expiry; the
// secret follows from it by HMAC-SHA256, so nothing is stored but the host's one secret.
type Keyring struct {
	secret [32]byte
	dir    *Directory
}

// NewKeyring uses the host's secret, 32 random bytes that are made once and kept in the store.
func NewKeyring(secret [32]byte, dir *Directory) *Keyring { return &Keyring{secret: secret, dir: dir} }

// Issue makes credentials for the VM as it is now. It fails with KindNotFound for a VM that is gone.
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

// Check finds the VM and the secret behind one of our access keys. That the caller holds the secret is for
// its signature to show. Errors (KindDenied): not one of ours, expired, from an earlier incarnation, or its VM is gone.
func (k *Keyring) Check(access string, now time.Time) (Identity, string, error) {
	claim, err := encoding().DecodeString(strings.TrimPrefix(access, accessPrefix))
	if err != nil || len(claim) != claimBytes || access != accessKey(claim) { // base32 alone lets spare bits and line ends pass
		return Identity{}, "", Errorf(KindDenied, "unknown access key")
	}
	m, ok := k.dir.ByID(ID(claim[:16]))
	switch {
	case !ok || m.Desired == Removed:
		return Identity{}, "", Errorf(KindDenied, "the access key belongs to a VM that is gone")
	case m.Incarnation != binary.BigEndian.Uint32(claim[16:]):
		return Identity{}, "", Errorf(KindDenied, "the access key is from before the VM was last started")
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
