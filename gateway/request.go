package gateway

import "time"

// AccessRequest is somebody's request to open one port of a VM. Who may manage the VM answers it.
type AccessRequest struct {
	ID      string    `json:"-"`                // 16 hex digits, in the key
	VM      ID        `json:"vm,omitzero"`      // zero: no VM had the name, and nobody sees the request
	Port    uint16    `json:"port,omitempty"`   // DefaultPort or 1 to 65535
	Host    string    `json:"host"`             // the name that was to be opened
	Person  Principal `json:"person,omitempty"` // who asked; 0: somebody who was not logged in
	Address string    `json:"address"`          // their mail address; if Person is 0, as they typed it: it proves nothing
	From    string    `json:"from,omitempty"`   // IP address
	Asked   time.Time `json:"asked"`
	Until   time.Time `json:"until"`
}

// Proven reports whether who asked has proved the address by a login.
func (q AccessRequest) Proven() bool { return q.Person != 0 }

// Limits of requests for access.
const (
	AccessRequestLife         = 7 * 24 * time.Hour
	MaxAccessRequests         = 1_000
	MaxAccessRequestsOfVM     = 50  // a newer one displaces an older one
	MaxAccessRequestsOfPerson = 10  // whether the VMs exist or not
	MaxUnprovenRequests       = 200 // of those in all
	MaxUnprovenRequestsOfPeer = 5   // from one IPv4 address or IPv6 /64
)
