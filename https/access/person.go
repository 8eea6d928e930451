package access

import "lodge/gateway"

// Person is who a login proves. The zero Person is a stranger.
type Person struct {
	ID      gateway.Principal // never used again for another person
	Address string            // mail address
}

// Known reports whether p is a person.
func (p Person) Known() bool { return p.ID > 0 && p.Address != "" }
