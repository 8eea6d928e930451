package access

// Person is who a login proves. The zero Person is a stranger.
type Person struct {
	ID      int64  // never used again for another person
	Address string // mail address, normalised
}

// Known reports whether p is a person.
func (p Person) Known() bool { return p.ID > 0 && p.Address != "" }
