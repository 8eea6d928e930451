package image

import (
	"strings"

	"lodge/gateway"
)

// Default is the image that VMs get when nobody says otherwise.
const Default = "debian-13"

// Recipe says what to build and where.
type Recipe struct {
	Name           string                 // one of Names
	Dir            string                 // where images are kept; made if need be
	Mirror         string                 // URL of a Debian archive; mmdebstrap(1) knows Debian's own if empty
	SecurityMirror string                 // URL of its security updates; needed when Mirror is given
	Progress       func(gateway.Progress) // phases "packages", "filesystem", "bootloader", "done"; may be nil
}

// Names are the images that Build can make, the default first.
func Names() []string { return []string{"debian-13", "debian-12"} }

// release is the Debian release behind an image's name.
func release(name string) (codename string, ok bool) {
	switch name {
	case "debian-13":
		return "trixie", true
	case "debian-12":
		return "bookworm", true
	}
	return "", false
}

// packages are those on top of Debian's essential ones, recommended packages left out.
func packages() string {
	return strings.Join([]string{
		// boot: the cloud kernel has virtio, ext4, isofs and the serial console, and a quarter of the modules
		"linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd", "systemd-sysv", "udev", "dbus",
		"cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "qemu-guest-agent", "chrony", "util-linux-extra",
		// people
		"openssh-server", "sudo", "less", "vim-tiny", "cron", "iproute2", "iputils-ping", "netbase", "ca-certificates", "bash-completion",
		// what programs are made of
		"python3", "sqlite3", "curl",
		// S3 tools that work at once
		"awscli", "python3-boto3", "s3cmd", "rclone",
	}, ",")
}

// sources is the guest's sources.list, and where the build gets its packages from. It is empty for Debian's own archive:
// mmdebstrap then writes the same lines itself.
func (r Recipe) sources(codename string) string {
	if r.Mirror == "" {
		return ""
	}
	return strings.NewReplacer("MIRROR", r.Mirror, "SECURITY", r.SecurityMirror, "CODENAME", codename).Replace(
		"deb MIRROR CODENAME main\ndeb MIRROR CODENAME-updates main\ndeb SECURITY CODENAME-security main\n")
}
