package mailbox

// Flags are the system flags of RFC 9051 §2.3.2 that are kept; keywords are not.
type Flags uint8

// The flags.
const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft

	AllFlags = Seen | Answered | Flagged | Deleted | Draft

	parked Flags = 1 << 7 // behind the cursor without a copy in the guest: see Box.Park
)
