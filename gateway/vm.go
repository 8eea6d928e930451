package gateway

import "time"

// Desired is the state that a VM should have; the reconciler in vmhost establishes it.
type Desired string

// The desired states.
const (
	Running Desired = "running"
	Stopped Desired = "stopped"
	Removed Desired = "removed" // being deleted: it gets no new work, and deletion continues after a crash
)

// DefaultPort, as the port of a share or a route, is the one that the VM's plain name leads to.
const DefaultPort uint16 = 0

// Size is a VM's image, processors, memory and disk.
type Size struct {
	Image      string `json:"image,omitempty"`       // name of the base image, such as "debian-13"
	CPUs       int    `json:"cpus,omitempty"`        // virtual processors
	MemoryMiB  int    `json:"memory_mib,omitempty"`  // memory in MiB
	DiskGiB    int    `json:"disk_gib,omitempty"`    // size of the root disk in GiB
	DirectBoot bool   `json:"direct_boot,omitempty"` // start the image's kernel directly instead of through its boot loader
}

// VM is the record of a VM: its identity and its definition. Values are copies; Shares, Grants,
// Domains and the lists in Mail and S3 are never changed in place.
type VM struct {
	Identity
	Size
	Desired       Desired   `json:"desired"`
	ForceStop     bool      `json:"force_stop,omitempty"`      // with Stopped: end it without asking the guest, until it is off
	Migrated      bool      `json:"migrated,omitempty"`        // with Stopped: its disk here is out of date, so it must not start
	WakeOnRequest bool      `json:"wake_on_request,omitempty"` // with Stopped: a web request of who may open the page starts it
	Restarting    bool      `json:"restarting,omitempty"`      // with Running: its guest was asked to shut down, and is started after its poweroff
	Ready         bool      `json:"ready"`                     // its disk and seed are complete; a VM that is not ready after a crash is removed
	Incarnation   uint32    `json:"incarnation"`               // counts the starts of the VM from the host; credentials end with it
	HostKey       string    `json:"host_key"`                  // the guest's SSH host key as an authorized_keys line, fixed before its first boot
	Disk          LayerID   `json:"disk,omitempty"`            // the uppermost layer of its root disk, which its guest writes to
	Created       time.Time `json:"created"`
	Shares        []Share   `json:"shares"`              // at most MaxShares
	Grants        []Grant   `json:"grants,omitempty"`    // ordered by principal, at most MaxGrants
	ShareRev      uint64    `json:"share_rev,omitempty"` // counts the changes of Shares and Grants
	Domains       []Domain  `json:"domains,omitempty"`   // at most MaxDomains, no name twice

	Mail MailSettings `json:"mail,omitzero"`
	S3   S3Settings   `json:"s3,omitzero"`

	CheckpointPlan CheckpointPlan `json:"checkpoint_plan,omitzero"`
	RollbackInside bool           `json:"rollback_inside,omitempty"` // a program in the VM may roll it back
	Rollback       *Rollback      `json:"rollback,omitempty"`        // under way; never changed in place
}

// Spec is the request for a new VM. The zero values in Size mean the daemon's defaults.
type Spec struct {
	Name string `json:"name"`
	Size
	Boot     bool   `json:"boot,omitempty"`      // boot the image, instead of resuming a guest that has booted
	UserData string `json:"user_data,omitempty"` // cloud-init user data, at most MaxUserDataBytes

	Grants []Grant `json:"-"` // of its first record, so that no crash leaves it without; never from a request
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

// Status is the present state of a VM, as opposed to the desired one.
type Status struct {
	State  string `json:"state"`            // "running", "stopped", "starting", "stopping", "crashed" or "unknown"
	Reason string `json:"reason,omitempty"` // why it is not the desired state, and what to do, where that is known
}
