package gateway

import "time"

// Passkey is a WebAuthn credential by which a person logs in. It holds no secret: its private key is
// in the person's device.
type Passkey struct {
	ID      []byte    `json:"id"`      // the credential's, 1 to 1023 bytes (WebAuthn §4), unique on the host
	Person  Principal `json:"person"`  // whose it is
	Address string    `json:"address"` // the person's mail address at the registration
	Name    string    `json:"name"`    // for the person
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"` // the last login
	Record  []byte    `json:"record"`        // public key, signature counter and flags, as package passkey writes them
}

// MaxPasskeys is how many a person may have.
const MaxPasskeys = 20
