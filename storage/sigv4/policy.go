package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"
)

// ParsePolicy reads the signature of a browser's form from its fields, whose names are in lower case
// (AWS: "Authenticating Requests in Browser-Based Uploads Using POST"). Errors are those of Parse.
func ParsePolicy(fields map[string]string) (Auth, error) {
	if fields["policy"] == "" {
		return Auth{}, ErrUnsigned
	}
	if fields["x-amz-algorithm"] != algorithm {
		return Auth{}, ErrMechanism
	}
	date, err := time.Parse(timeFormat, fields["x-amz-date"])
	if err != nil {
		return Auth{}, fmt.Errorf("%w: x-amz-date is %.40q", ErrMalformed, fields["x-amz-date"])
	}
	a, err := newAuth(fields["x-amz-credential"], "host", fields["x-amz-signature"], date)
	a.Presigned = true
	return a, err
}

// VerifyPolicy checks that a form's policy, in base64, was signed with secret. The policy itself says
// how long that counts. Errors: ErrMismatch, ErrMalformed.
func (a Auth) VerifyPolicy(policy, secret string) error {
	if a.Time.UTC().Format(dayFormat) != a.Day {
		return fmt.Errorf("%w: the credential's day is not the form's", ErrMalformed)
	}
	mac := hmac.New(sha256.New, signingKey(secret, a.Day, a.Region))
	mac.Write([]byte(policy))
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(a.Signature)) != 1 {
		return ErrMismatch
	}
	return nil
}
