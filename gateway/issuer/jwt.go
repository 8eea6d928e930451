package issuer

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"lodge/gateway"
)

// algorithm is the only one of tokens. OpenID Connect requires every verifier and provider to have
// RS256, and some relying parties accept nothing else by default (Kubernetes, Vault) or at all
// (Microsoft Entra). ES256 would be faster and shorter, but lacks those.
const algorithm = "RS256"

// keyBits is the size that all relying parties accept. A key signs for 30 days.
const keyBits = 2048

// skew is how far behind the clock of a relying party may be.
const skew = time.Minute

// key is a key that signs tokens.
type key struct {
	private *rsa.PrivateKey
	id      string    // its thumbprint
	signs   time.Time // from when on it signs
}

func newKey() (key, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return key{}, fmt.Errorf("make signing key: %w", err)
	}
	return key{private: private, id: thumbprint(&private.PublicKey)}, nil
}

// claims are those of RFC 7519 §4.1, and Lodge's own under one name.
type claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Issued    int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
	ID        string `json:"jti"`
	Lodge     own    `json:"lodge"`
}

// own are the claims about the VM at the time of issue. The subject alone identifies it.
type own struct {
	VM          string `json:"vm"`   // its name, which a later VM may have
	Host        string `json:"host"` // the machine that it runs on
	Incarnation uint32 `json:"incarnation"`
}

// Subject returns the sub of a VM's tokens. It has the UUID, because a name is free again once its VM
// is removed: what trusts "vm:<name>" would trust the next VM of that name.
func Subject(id gateway.ID) string { return "vm:" + id.String() }

func (i *Issuer) claims(vm gateway.VM, audience, id string, issued, expires time.Time) claims {
	return claims{
		Issuer: i.URL, Subject: Subject(vm.ID), Audience: audience,
		Issued: issued.Unix(), NotBefore: issued.Add(-skew).Unix(), Expires: expires.Unix(), ID: id,
		Lodge: own{vm.Name, i.Host, vm.Incarnation},
	}
}

// sign returns a JSON Web Signature in its compact form (RFC 7515 §7.1).
func (k key) sign(c claims) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": algorithm, "kid": k.id, "typ": "JWT"})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	input := encode(header) + "." + encode(payload)
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, k.private, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	return input + "." + encode(signature), nil
}

// jwk is a public key (RFC 7517). The fields before Use are those of its thumbprint.
type jwk struct {
	E   string `json:"e"`
	Kty string `json:"kty"`
	N   string `json:"n"`
	Use string `json:"use,omitempty"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
}

func newJWK(public *rsa.PublicKey) jwk {
	return jwk{E: encode(big.NewInt(int64(public.E)).Bytes()), Kty: "RSA", N: encode(public.N.Bytes())}
}

// thumbprint returns the hash of the required members in lexicographic order (RFC 7638 §3).
func thumbprint(public *rsa.PublicKey) string {
	digest := sha256.Sum256(mustMarshal(newJWK(public)))
	return encode(digest[:])
}

// keySet returns the JWK Set of the keys (RFC 7517 §5).
func keySet(keys []key) []byte {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for _, k := range keys {
		one := newJWK(&k.private.PublicKey)
		one.Use, one.Alg, one.Kid = "sig", algorithm, k.id
		set.Keys = append(set.Keys, one)
	}
	return mustMarshal(set)
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// mustMarshal is for structs of strings, which json.Marshal never refuses.
func mustMarshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
