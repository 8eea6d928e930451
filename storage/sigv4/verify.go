package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Verify checks that r was signed with secret at about now, and returns the chain of its chunk
// signatures. Every X-Amz-* header must be signed. Errors: ErrMismatch, ErrSkewed, ErrExpired,
// ErrMalformed.
func (a Auth) Verify(r *http.Request, secret string, now time.Time) (*Chain, error) {
	if err := a.checkTime(now); err != nil {
		return nil, a.inQuery(err)
	}
	if err := a.checkSigned(r); err != nil {
		return nil, err
	}
	canonical, err := canonicalRequest(r, a.SignedHeaders, a.payloadHash(r), a.Presigned)
	if err != nil {
		return nil, err
	}
	chain := &Chain{key: signingKey(secret, a.Day, a.Region), time: a.Time.Format(timeFormat), scope: a.scope(), last: a.Signature}
	want := chain.sign(algorithm, hexSHA256([]byte(canonical)))
	if subtle.ConstantTimeCompare([]byte(want), []byte(a.Signature)) != 1 {
		return nil, ErrMismatch
	}
	return chain, nil
}

func (a Auth) checkTime(now time.Time) error {
	if a.Time.UTC().Format(dayFormat) != a.Day {
		return fmt.Errorf("%w: the credential's day is not the request's", ErrMalformed)
	}
	age := now.Sub(a.Time)
	switch {
	case age < -maxSkew:
		return ErrSkewed
	case a.Presigned && age >= a.Expires:
		return ErrExpired
	case !a.Presigned && age > maxSkew:
		return ErrSkewed
	}
	return nil
}

// checkSigned refuses headers that change a request's meaning without being signed.
func (a Auth) checkSigned(r *http.Request) error {
	if !slices.Contains(a.SignedHeaders, "host") {
		return fmt.Errorf("%w: host", ErrNotSigned)
	}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if a.Presigned && name == payloadHeader {
			continue // presigned URLs name their payload in the query, or sign none
		}
		if strings.HasPrefix(lower, "x-amz-") && !slices.Contains(a.SignedHeaders, lower) {
			return fmt.Errorf("%w: %s", ErrNotSigned, lower)
		}
	}
	return nil
}

func (a Auth) payloadHash(r *http.Request) string {
	if v := r.Header.Get(payloadHeader); v != "" && (!a.Presigned || slices.Contains(a.SignedHeaders, strings.ToLower(payloadHeader))) {
		return v
	}
	if v := r.URL.Query().Get(payloadHeader); a.Presigned && v != "" {
		return v
	}
	return Unsigned
}

// Sign signs r with the payload hash in its X-Amz-Content-Sha256 header, covering Host and every
// X-Amz-* header.
func Sign(r *http.Request, access, secret, region string, now time.Time) error {
	now = now.UTC()
	r.Header.Set(dateHeader, now.Format(timeFormat))
	signed := []string{"host"}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			signed = append(signed, lower)
		}
	}
	slices.Sort(signed)
	canonical, err := canonicalRequest(r, signed, r.Header.Get(payloadHeader), false)
	if err != nil {
		return err
	}
	a := Auth{Day: now.Format(dayFormat), Region: region}
	chain := Chain{key: signingKey(secret, a.Day, region), time: now.Format(timeFormat), scope: a.scope()}
	r.Header.Set("Authorization", algorithm+" Credential="+access+"/"+a.scope()+
		", SignedHeaders="+strings.Join(signed, ";")+", Signature="+chain.sign(algorithm, hexSHA256([]byte(canonical))))
	return nil
}

// Chain is a verified signature, on which the signatures of a body's chunks build, each on the one
// before.
type Chain struct {
	key   []byte
	time  string
	scope string
	last  string
}

// sign signs the lines of a string to sign below its kind, time and scope.
func (c *Chain) sign(kind string, lines ...string) string {
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(kind + "\n" + c.time + "\n" + c.scope + "\n" + strings.Join(lines, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

// next verifies the signature of the next part of a body: a chunk, or the trailer.
func (c *Chain) next(kind, signature string, lines ...string) error {
	want := c.sign(kind, append([]string{c.last}, lines...)...)
	if subtle.ConstantTimeCompare([]byte(want), []byte(signature)) != 1 {
		return fmt.Errorf("%w: of a chunk of the body", ErrMismatch)
	}
	c.last = want
	return nil
}

func signingKey(secret, day, region string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{day, region, service, terminal} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return key
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
