// Package vmhost makes VMs and keeps them in their desired state, by libvirt.
//
// The Directory has the desired state of each VM. One loop (Host.Run) wakes a worker per VM
// whenever something may have changed; the worker compares the desired state with libvirt's and
// acts. A verb (New, Start, Stop, Restart, Remove) is recorded in the Directory first and done by
// the same steps. A daemon that is killed in between thus continues where it was. Workers and verbs
// take turns on a VM and never wait for another VM.
//
// A VM behaves as a laptop does. A reboot from inside restarts it. A poweroff from inside leaves it
// off until a verb starts it. When it ends any other way (QEMU died, the host was rebooted) it is
// started again. Restarting the daemon or libvirtd touches no running VM.
//
// A VM's tap and the listeners on it (its identity) exist from New to Remove, running or not, and
// always before its domain runs. This package never decides who a caller is and never uses
// libvirt's autostart, networks or snapshot objects.
package vmhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/accel"
	"lodge/vmhost/checkpoint"
	"lodge/vmhost/image"
	"lodge/vmhost/layers"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/sshagent"
)

// Net makes the taps and the rules by which a VM is known; netid is the implementation.
type Net interface {
	// Apply makes exactly these VMs' taps and rules: it makes missing ones, and removes those of
	// other VMs.
	Apply(ctx context.Context, vms []gateway.Identity) error
	// Up makes one VM's tap and rules. It is no error when they are there.
	Up(ctx context.Context, vm gateway.Identity) error
	// Down removes them. It is no error when they are gone.
	Down(ctx context.Context, vm gateway.Identity) error
	// Repair restores what others have removed, such as a restart of nftables.service that flushed
	// all rules. It returns the VMs whose tap was replaced: their listeners have to be opened
	// again.
	Repair(ctx context.Context) (replaced []gateway.Identity, err error)
}

// TapListeners are the services that listen on a VM's tap; gateway.TapListeners is the
// implementation.
type TapListeners interface {
	Open(ctx context.Context, vm gateway.Identity) error
	Close(id gateway.ID)
	// CloseRest is called once every VM that stays was opened.
	CloseRest()
}

// Config is what a Host needs. Fields without a default are required.
type Config struct {
	StateDir string // images, disks, console logs and keys; QEMU, which is not root, needs search permission on it
	RunDir   string // console sockets and the public login key
	Domain   string // VMs are called <name>.<Domain>
	RootPEM  []byte // the certificate authority that guests trust from their first boot

	Directory    *gateway.Directory
	Layers       layers.Records
	Checkpoints  checkpoint.Records
	Parts        []gateway.Part // what checkpoints cover beside disks; may be empty
	Net          Net
	TapListeners TapListeners
	OnRemove     []func(context.Context, gateway.ID) error // called when a VM is removed; called again until they succeed

	Accel         accel.Mode    // how guests run; accel.Auto
	LibvirtSocket string        // libvirt.DefaultSocket
	Defaults      gateway.Size  // for what a Spec leaves out; debian-13, 2 CPUs, 1024 MiB, 10 GiB
	StartsAtOnce  int           // how many VMs are started at the same time; 2
	MergeAt       int           // how many layers the disk of a running VM has when they are merged, at least 4; 32
	StopTimeout   time.Duration // how long a guest may take to shut down; 90 s
	Logger        *slog.Logger
}

// Host runs the VMs of this machine. It is safe for concurrent use.
type Host struct {
	cfg         Config
	dir         *gateway.Directory
	virt        *libvirt.Client
	accel       *accel.Prover
	templates   *templates
	layers      *layers.Tree
	checkpoints *checkpoint.List
	at          func(point string) // tests crash in it
	log         *slog.Logger
	agent       *sshagent.Server
	login       string        // the host's own public key, as an authorized_keys line
	ready       chan struct{} // closed once Run has the identity of all VMs in place
	woken       chan struct{} // holds a token while Run has to wake the workers
	starts      chan struct{} // holds one token per start under way
	examining   chan struct{} // holds one token per guest that is examined
	readers     sync.RWMutex  // held for reading while a reader may run (see reader.go)

	mu      sync.Mutex
	merges  merges
	vms     map[gateway.ID]*worker
	network error // the last error of taps and rules
	asked   bool  // libvirtd has answered once, or not in time
	settled bool  // Ready has returned nil
}

// New makes a host with its directories and its login key. Nothing runs before Run.
func New(c Config) (*Host, error) {
	c = withDefaults(c)
	for dir, mode := range map[string]os.FileMode{
		c.StateDir: 0o711, c.diskDir(): 0o711, c.logDir(): 0o711, c.keyDir(): 0o700, c.removedDir(): 0o700,
		c.memoryDir(): 0o700, c.RunDir: 0o711, c.consoleDir(): 0o711, c.readerDir(): 0o711, c.examinedDir(): 0o700,
	} {
		if err := makeDir(dir, mode); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	if err := image.MakeDir(c.imageDir()); err != nil {
		return nil, err
	}
	agent, login, err := loginAgent(c.LoginKeyFile(), c.Logger)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(c.publicKeyFile(), []byte(login+"\n"), 0o644); err != nil {
		return nil, err
	}
	templates, err := newTemplates(c.templateDir())
	if err != nil {
		return nil, err
	}
	tree, err := layers.Open(context.Background(), c.Layers, disks{c.Directory}, c.StateDir)
	if err != nil {
		return nil, err
	}
	checkpoints, err := checkpoint.Open(context.Background(), c.Checkpoints)
	if err != nil {
		return nil, err
	}
	return &Host{
		templates:   templates,
		layers:      tree,
		checkpoints: checkpoints,
		at:          func(string) {},
		cfg:         c,
		dir:         c.Directory,
		virt:        libvirt.New(libvirt.Config{Socket: c.LibvirtSocket, Logger: c.Logger}),
		accel:       accel.New(c.Accel, filepath.Join(c.StateDir, "accel.json"), c.Logger),
		log:         c.Logger,
		agent:       agent,
		login:       login,
		ready:       make(chan struct{}),
		woken:       make(chan struct{}, 1),
		starts:      make(chan struct{}, c.StartsAtOnce),
		examining:   make(chan struct{}, inventoriesAtOnce),
		vms:         map[gateway.ID]*worker{},
	}, nil
}

// makeDir makes sure that there is a directory with at least these permissions, whatever the umask
// is.
func makeDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()|mode == info.Mode().Perm() {
		return err
	}
	return os.Chmod(dir, info.Mode().Perm()|mode)
}

func withDefaults(c Config) Config {
	if c.Accel == "" {
		c.Accel = accel.Auto
	}
	if c.StartsAtOnce <= 0 {
		c.StartsAtOnce = 2
	}
	if c.MergeAt < 4 { // after a merge there are three
		c.MergeAt = 32
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = 90 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Defaults = fill(c.Defaults, gateway.Size{Image: gateway.DefaultImage, CPUs: 2, MemoryMiB: 1024, DiskGiB: 10})
	return c
}

// LoginKeyFile is the private key with which the host itself logs in to its VMs.
func (c Config) LoginKeyFile() string { return filepath.Join(c.keyDir(), "id_ed25519") }

func (c Config) imageDir() string    { return filepath.Join(c.StateDir, "images") }
func (c Config) templateDir() string { return filepath.Join(c.StateDir, "templates") }
func (c Config) diskDir() string     { return filepath.Join(c.StateDir, "disks") }
func (c Config) logDir() string      { return filepath.Join(c.StateDir, "console") }
func (c Config) keyDir() string      { return filepath.Join(c.StateDir, "ssh") }
func (c Config) removedDir() string  { return filepath.Join(c.StateDir, "removed") }
func (c Config) readerDir() string   { return filepath.Join(c.StateDir, "readers") }
func (c Config) examinedDir() string { return filepath.Join(c.StateDir, "examined") }
func (c Config) consoleDir() string  { return filepath.Join(c.RunDir, "console") }

// publicKeyFile is beside the agent's socket, and all may read it.
func (c Config) publicKeyFile() string { return filepath.Join(c.RunDir, "ssh-agent.pub") }

// memoryExt ends the names of copies of a template's memory, which exist while a VM is resumed.
const memoryExt = ".memory"

func (c Config) memoryFile(id gateway.ID) string {
	return filepath.Join(c.diskDir(), id.String()+memoryExt)
}

func (c Config) seedFile(id gateway.ID) string {
	return filepath.Join(c.diskDir(), id.String()+".seed")
}
func (c Config) logFile(id gateway.ID) string     { return filepath.Join(c.logDir(), id.String()+".log") }
func (c Config) removedFile(id gateway.ID) string { return filepath.Join(c.removedDir(), id.String()) }
func (c Config) consoleFile(id gateway.ID) string {
	return filepath.Join(c.consoleDir(), id.String()+".sock")
}

// Agent returns the ssh-agent that has the login key. It serves gateway.SSHAgentSocket of RunDir.
func (h *Host) Agent() *sshagent.Server { return h.agent }

// SSH returns what a log-in to a VM needs.
func (h *Host) SSH(id gateway.ID) (gateway.SSHAccess, error) {
	m, ok := h.dir.ByID(id)
	if !ok {
		return gateway.SSHAccess{}, errGone()
	}
	addr := m.Addr.String()
	return gateway.SSHAccess{
		Addr: addr, User: gateway.GuestUser, KnownHosts: addr + " " + m.HostKey,
		PublicKeyFile: h.cfg.publicKeyFile(), AgentSocket: gateway.SSHAgentSocket(h.cfg.RunDir),
	}, nil
}

// await waits until Run has put every VM's identity in place.
func (h *Host) await(ctx context.Context) error {
	select {
	case <-h.ready:
		return nil
	case <-ctx.Done():
		return gateway.Errorf(gateway.KindUnavailable, "lodged is still starting").WithHint("Try again in a moment.").Because(ctx.Err())
	}
}

// begin waits until the host is ready, and finds the VM's worker.
func (h *Host) begin(ctx context.Context, id gateway.ID) (*worker, error) {
	if err := h.await(ctx); err != nil {
		return nil, err
	}
	if _, ok := h.dir.ByID(id); !ok {
		return nil, errGone()
	}
	return h.worker(id), nil
}

// desire records the desired state of the VM, and ends a restart. It fails for a VM that is being
// removed.
func (h *Host) desire(ctx context.Context, id gateway.ID, want gateway.Desired) (gateway.VM, error) {
	return h.record(ctx, id, func(m *gateway.VM) { desire(m, want) })
}

func desire(m *gateway.VM, want gateway.Desired) {
	m.Desired, m.Restarting = want, false
	m.ForceStop = m.ForceStop && want == gateway.Stopped
	m.Migrated = m.Migrated && want == gateway.Stopped
}

// record changes the record of a VM that is not being removed, or marks it as removed.
func (h *Host) record(ctx context.Context, id gateway.ID, change func(*gateway.VM)) (gateway.VM, error) {
	return h.dir.Update(ctx, id, func(m *gateway.VM) error {
		was := m.Desired
		if change(m); was == gateway.Removed && m.Desired != gateway.Removed {
			return errGone()
		}
		return nil
	})
}

func errGone() error {
	return gateway.Errorf(gateway.KindNotFound, "the VM is gone").WithHint("lodge ls lists the VMs.")
}

// explain formats err for a status line, with its hint if it has one.
func explain(err error) string {
	if e, ok := errors.AsType[*gateway.Error](err); ok && e.Hint != "" {
		return e.Msg + ". " + e.Hint
	}
	return err.Error()
}
