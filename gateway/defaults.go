package gateway

import "path/filepath"

// Defaults of the daemon's configuration. lodge looks for the daemon there.
const (
	DefaultStateDir = "/var/lib/lodge"
	DefaultRunDir   = "/run/lodge"
	DefaultImage    = "debian-13"
)

// S3Region is the only region. It is the default of S3 clients, so that they need no setting.
const S3Region = "us-east-1"

// ControlSocket is the path of the control API's unix socket below a runtime directory.
func ControlSocket(runDir string) string { return filepath.Join(runDir, "lodged.sock") }

// S3Socket is the path of the unix socket at which the host itself uses S3, below a runtime
// directory.
func S3Socket(runDir string) string { return filepath.Join(runDir, "s3.sock") }

// SSHAgentSocket is the path of the unix socket of the ssh-agent that logs in to VMs, below a runtime
// directory.
func SSHAgentSocket(runDir string) string { return filepath.Join(runDir, "ssh-agent.sock") }

// WebPorts are the ports that a VM's plain name leads to: the first that accepts connections.
func WebPorts() []uint16 { return []uint16{80, 8000, 8080, 3000, 5000, 5173} }
