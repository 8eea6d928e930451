package gateway

import "time"

// PassKind is how a Pass is held.
type PassKind string

// The kinds of passes.
const (
	LinkPass  PassKind = "share-link" // in a URL that people open
	TokenPass PassKind = "token"      // in the Authorization header of scripts
)

// Pass opens a port or a bucket of a VM to whoever holds its secret, without a login: a link to one
// whose visibility is Link, or a token for scripts, which may open the ports that the person may
// who made it.
type Pass struct {
	ID       string // 16 hex digits, unique on the host
	Kind     PassKind
	VM       ID
	Person   Principal // who made it; it ends with them
	Port     uint16
	Bucket   string // of a link: in place of the port
	AllPorts bool   // of a token: Port does not count
	Label    string // for people
	Uses     int    // of a link: how often it was opened in a browser
	MaxUses  int    // of a link
	Expires  time.Time
}

// Limits of passes.
const (
	MaxPassesOfVM = 100 // of one kind
	MaxPassUses   = 1_000
	MaxPassLife   = 366 * 24 * time.Hour
	MaxLabelBytes = 64
)
