package gateway

import "time"

// WebSession is a login of a person at the domain itself, in one browser. It hands over to the names of
// the VMs that the person may open.
type WebSession struct {
	ID      [32]byte  `json:"-"`      // the SHA-256 of the secret that the browser has
	Person  Principal `json:"person"` // who is logged in
	Address string    `json:"address"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"` // the last use, some minutes coarse
	Until   time.Time `json:"until"`
	Browser string    `json:"browser"` // a label, such as "Firefox on Linux"
	From    string    `json:"from"`    // IP address of the last use, as coarse
	Way     string    `json:"way"`     // how the person logged in: link, passkey, or the name of a provider
}

// MaxWebSessions is how many a person has at most: a new one ends the one that was not used the longest.
const MaxWebSessions = 50
