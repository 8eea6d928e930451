package gateway

import (
	"cmp"
	"slices"
)

// Principal is a person or a team, by a number that is never used again (package people): what was for
// one who is removed is for nobody, also if the same address is added again. 0 is nobody.
type Principal uint64

// Level is what a principal may do with a VM. Each level has those below it.
type Level string

// The levels, from the lowest.
const (
	NoLevel Level = ""
	View    Level = "view"   // open its pages
	Use     Level = "use"    // also its shell, mail, files and buckets
	Manage  Level = "manage" // everything
)

// ParseLevel reads a level; "none" is NoLevel.
func ParseLevel(text string) (Level, error) {
	switch l := Level(text); l {
	case View, Use, Manage:
		return l, nil
	case "none":
		return NoLevel, nil
	}
	return NoLevel, Invalid("not a level: %q", text).WithHint("Choose view (its pages), use (also shell, mail and files), manage (everything) or none.")
}

// Covers reports whether l is least or above it.
func (l Level) Covers(least Level) bool { return l.rank() >= least.rank() }

func (l Level) rank() int {
	switch l {
	case View:
		return 1
	case Use:
		return 2
	case Manage:
		return 3
	}
	return 0
}

// Grant is the level of a principal on one VM.
type Grant struct {
	To    Principal `json:"to"`
	Level Level     `json:"level"`
}

// MaxGrants limits the grants of a VM, and the people, teams and domains of one share.
const MaxGrants = 1000

// WithGrant returns m's grants, ordered by principal, with that of to replaced; NoLevel removes it.
func (m VM) WithGrant(to Principal, level Level) []Grant {
	grants := slices.DeleteFunc(slices.Clone(m.Grants), func(g Grant) bool { return g.To == to })
	if level == NoLevel {
		return grants
	}
	grants = append(grants, Grant{to, level})
	slices.SortFunc(grants, func(a, b Grant) int { return cmp.Compare(a.To, b.To) })
	return grants
}

// MaxShares limits the shares of a VM.
const MaxShares = 256

// Visibility is the set of people who can open a port's page, or list and read a bucket.
type Visibility string

// The visibilities. What is not shared is private, and so is a visibility of a later Lodge.
const (
	Private Visibility = "private" // the VM itself, owners, and who has a grant on the VM; they may open all others too
	People  Visibility = "people"  // the people in With, and those with an address in Domains
	Team    Visibility = "team"    // the members of the teams in With, and people there
	Link    Visibility = "link"    // who has a link to it, and the people in With
	Public  Visibility = "public"  // anyone
)

// Share is the visibility of one port of a VM.
type Share struct {
	Port       uint16      `json:"port"` // DefaultPort or 1 to 65535
	Visibility Visibility  `json:"visibility"`
	With       []Principal `json:"with,omitempty"`    // of people, team and link
	Domains    []string    `json:"domains,omitempty"` // of mail addresses: what is behind the @
}

// Share returns that of a port; a private one if there is none. A share of DefaultPort opens the plain
// name only, and a share of a port opens <port>-<vm> only.
func (m *VM) Share(port uint16) Share {
	for _, s := range m.Shares {
		if s.Port == port {
			return s
		}
	}
	return Share{Port: port, Visibility: Private}
}

// Admitting returns s with one person more who may open the port; a private one becomes one for people.
func (s Share) Admitting(p Principal) Share {
	if s.Visibility == Private {
		s.Visibility = People
	}
	if !slices.Contains(s.With, p) {
		s.With = append(slices.Clone(s.With), p)
		slices.Sort(s.With)
	}
	return s
}

// Visibility returns that of a port.
func (m *VM) Visibility(port uint16) Visibility { return m.Share(port).Visibility }

// SharedWithDomain reports whether a port or a bucket is open to who has an address of a domain.
func (m VM) SharedWithDomain(domain string) bool {
	with := func(s Share) bool { return s.Visibility == People && slices.Contains(s.Domains, domain) }
	return slices.ContainsFunc(m.Shares, with) || slices.ContainsFunc(m.S3.Shares, func(b BucketShare) bool { return with(b.Share) })
}

// WithShare returns m's shares with that of share's port replaced.
func (m VM) WithShare(share Share) []Share {
	shares := slices.DeleteFunc(slices.Clone(m.Shares), func(s Share) bool { return s.Port == share.Port })
	if share.Visibility == Private {
		return shares
	}
	return append(shares, share)
}
