package control

import (
	"time"

	"lodge/gateway"
)

// Info is a VM as the verbs show it: what is recorded, what is seen, and where its doors are.
type Info struct {
	gateway.VM
	gateway.Status
	URL        string `json:"url"`
	MailDomain string `json:"mail_domain"` // anything@ this lands in the VM
}

// Event is one line of a streamed answer. The last line has VM or Error, all others Progress; an answer that ends
// without either was cut off.
type Event struct {
	Progress *gateway.Progress `json:"progress,omitempty"`
	VM       *Info             `json:"vm,omitempty"`
	Error    *gateway.Error    `json:"error,omitempty"`
}

// Health is what the daemon says of itself.
type Health struct {
	Version string `json:"version"`
	Domain  string `json:"domain"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"` // why it is not ready
	VMs     int    `json:"vms"`
}

// Milestone is how far a VM must have come before a wait is over.
type Milestone string

// The milestones.
const (
	Userspace Milestone = "userspace" // its own programs run: one can log in
	Service   Milestone = "service"   // and something answers at its URL
)

// StopRequest is the body of stop.
type StopRequest struct {
	Force bool `json:"force"` // pull the plug instead of asking the guest
}

// LoginRequest is the body of login. The empty person is the owner.
type LoginRequest struct {
	Person string `json:"person,omitempty"`
}

// LoginAnswer is a link that works once.
type LoginAnswer struct {
	URL string `json:"url"`
}

// CredentialsAnswer are S3 credentials for one VM, from the host's side.
type CredentialsAnswer struct {
	AccessKey string    `json:"access_key"`
	SecretKey string    `json:"secret_key"`
	Expires   time.Time `json:"expires"`
}
