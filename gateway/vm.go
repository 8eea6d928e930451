package gateway

import (
	"slices"
	"time"
)

// Desired is the state that a VM ought to be in; the reconciler in vmhost brings it there.
type Desired string

// What can be desired of a VM.
const (
	Running Desired = "running"
	Stopped Desired = "stopped"
	Removed Desired = "removed" // being deleted: no work is taken, and a crash in between goes on deleting
)

// Visibility says who may open a port's page.
type Visibility string

// The visibilities. What is not shared is private.
const (
	Private Visibility = "private" // the owner only, and the VM itself
	Public  Visibility = "public"  // anyone
)

// DefaultPort, as the port of a share or a route, stands for whatever port the VM's plain name leads to.
const DefaultPort uint16 = 0

// Size is what a VM is made of: its image, its processors, its memory and its disk.
type Size struct {
	Image      string `json:"image,omitempty"`       // name of the base image, such as "debian-13"
	CPUs       int    `json:"cpus,omitempty"`        // virtual processors
	MemoryMiB  int    `json:"memory_mib,omitempty"`  // memory in MiB
	DiskGiB    int    `json:"disk_gib,omitempty"`    // size of the root disk in GiB
	DirectBoot bool   `json:"direct_boot,omitempty"` // start the image's kernel directly instead of through its boot loader
}

// VM is all that is recorded of a VM: its identity and its definition. Values are copies; Shares is never
// changed in place.
type VM struct {
	Identity
	Size
	Desired     Desired   `json:"desired"`
	Ready       bool      `json:"ready"`       // its disk and seed are whole; a VM that is not ready after a crash is taken away again
	Incarnation uint32    `json:"incarnation"` // counts the starts of the VM from the host; credentials end with it
	HostKey     string    `json:"host_key"`    // the guest's SSH host key as an authorized_keys line, fixed before its first boot
	Created     time.Time `json:"created"`
	Shares      []Share   `json:"shares"`
}

// Share is the visibility of one port of a VM.
type Share struct {
	Port       uint16     `json:"port"` // DefaultPort or 1 to 65535
	Visibility Visibility `json:"visibility"`
}

// Visibility of a port: Private unless a share says otherwise. A share of DefaultPort opens exactly the plain name, and
// a share of a port opens exactly <port>-<vm>.
func (m VM) Visibility(port uint16) Visibility {
	for _, s := range m.Shares {
		if s.Port == port {
			return s.Visibility
		}
	}
	return Private
}

// WithShare returns m's shares with that of port set.
func (m VM) WithShare(port uint16, v Visibility) []Share {
	shares := slices.DeleteFunc(slices.Clone(m.Shares), func(s Share) bool { return s.Port == port })
	if v == Private {
		return shares
	}
	return append(shares, Share{Port: port, Visibility: v})
}

// Spec is the request for a new VM. The zero values in Size mean the daemon's defaults.
type Spec struct {
	Name string `json:"name"`
	Size
	UserData string `json:"user_data,omitempty"` // cloud-init user data, at most MaxUserDataBytes
}

// MaxUserDataBytes limits cloud-init user data.
const MaxUserDataBytes = 1 << 20

// Progress is one step of long work. Its form in JSON is api.Progress.
type Progress struct {
	Phase   string        // one word: "disk", "define", "kernel", "ssh", "http"
	Text    string        // a line to show
	Done    int64         // of Total, in any unit
	Total   int64         // 0 when not known
	Elapsed time.Duration // since the work began
}

// Status is what is seen of a VM now, as opposed to what is desired.
type Status struct {
	State  string `json:"state"`            // "running", "stopped", "starting", "stopping", "crashed" or "unknown"
	Reason string `json:"reason,omitempty"` // why it is not as desired, with what to do, where that is known
}
