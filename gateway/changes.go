package gateway

import "time"

// ChangesQuery asks for Changes.
type ChangesQuery struct {
	From string // a checkpoint; empty: the image
	To   string // a checkpoint; empty: now
	Text bool   // with a unified diff of text files
}

// Changes are the differences between two moments of a VM, mostly between its image and now. Every list
// is in the order of its names.
type Changes struct {
	Packages []PackageChange `json:"packages"`
	Accounts []AccountChange `json:"accounts"`
	Units    []UnitChange    `json:"units"`
	Files    []FileChange    `json:"files"`
	Ports    []OpenPort      `json:"ports"`          // that programs listen on now; none when the VM is off, or compared with a checkpoint
	Cut      bool            `json:"cut"`            // there were too many files: the list is incomplete
	Text     string          `json:"text,omitempty"` // what was changed in text files, as a unified diff, if asked for
}

// How something was changed.
const (
	Added   = "added"
	Changed = "changed"
	Gone    = "removed"
)

// PackageChange is a Debian package that was installed, removed or replaced by another version.
type PackageChange struct {
	Name    string `json:"name"`
	Change  string `json:"change"`            // added, changed or removed
	Version string `json:"version,omitempty"` // now
	Was     string `json:"was,omitempty"`     // the version before
	Manual  bool   `json:"manual"`            // installed by itself, not as a dependency
}

// AccountChange is a user or a group.
type AccountChange struct {
	Kind   string `json:"kind"` // user or group
	Name   string `json:"name"`
	Change string `json:"change"` // added, changed or removed
	ID     int    `json:"id"`
	Rest   string `json:"rest"` // the other fields of passwd(5), or the members of the group
}

// UnitChange is a systemd unit that was enabled, disabled, masked or unmasked.
type UnitChange struct {
	Name   string `json:"name"`
	Change string `json:"change"`
}

// FileChange is a file, directory or symbolic link.
type FileChange struct {
	Path     string    `json:"path"`
	Change   string    `json:"change"`         // added, changed or removed
	What     []string  `json:"what,omitempty"` // of a changed one: content, mode, owner, type
	Type     string    `json:"type"`           // file, directory, link or other
	Bytes    int64     `json:"bytes"`
	Mode     string    `json:"mode"` // octal, such as 0644
	Owner    string    `json:"owner"`
	Group    string    `json:"group"`
	Link     string    `json:"link,omitempty"` // target of a symbolic link
	Modified time.Time `json:"modified"`
}

// OpenPort is a port that a program in the VM listens on.
type OpenPort struct {
	Protocol string `json:"protocol"` // tcp or udp
	Addr     string `json:"addr"`     // such as 0.0.0.0:80 or [::]:80
	Program  string `json:"program"`  // empty if unknown
}

// MaxHistory is the most steps of a history.
const MaxHistory = 50

// HistoryStep is what was changed in a VM from one checkpoint to the next.
type HistoryStep struct {
	From     string         `json:"from,omitempty"` // a checkpoint; empty: the image
	FromTime time.Time      `json:"from_time,omitzero"`
	To       string         `json:"to,omitempty"` // a checkpoint; empty: now
	ToTime   time.Time      `json:"to_time,omitzero"`
	Kind     CheckpointKind `json:"kind,omitempty"` // of To
	Changes  Changes        `json:"changes"`
}

// Recipe makes a new VM the same as another.
type Recipe struct {
	UserData string         `json:"user_data"`         // cloud-init user data
	Objects  []RecipeObject `json:"objects,omitempty"` // large files, which it fetches: their Links are to be replaced by URLs
	LeftOut  []LeftOut      `json:"left_out"`          // what it does not have
}

// Limits on the large files of a recipe.
const (
	MaxRecipeObjects     = 200
	MaxRecipeObjectBytes = 1 << 30 // of all together
)

// RecipeObject is a large file of a recipe, as it was when the recipe was made.
type RecipeObject struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // in hexadecimal digits
}

// Link stands in the user data for a URL of the file's content.
func (o RecipeObject) Link() string { return "lodge-object:" + o.SHA256 }

// LeftOut is something that a recipe does not have.
type LeftOut struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}
