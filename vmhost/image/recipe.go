package image

import (
	"strings"

	"lodge/gateway"
)

// Default is the image of a VM for which none is named.
const Default = gateway.DefaultImage

// Recipe describes an image to build.
type Recipe struct {
	Name           string                 // one of Names
	Dir            string                 // of the images; made if absent
	Mirror         string                 // URL of a Debian archive; Debian's own if empty
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

// packages are installed beside Debian's essential ones, without recommended packages.
func packages() string {
	return strings.Join([]string{
		// boot: the cloud kernel has virtio, ext4, isofs and the serial console, and a quarter of
		// the modules
		"linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd", "systemd-sysv", "udev", "dbus",
		"cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "qemu-guest-agent", "chrony", "util-linux-extra",
		// people
		"openssh-server", "sudo", "less", "vim-tiny", "cron", "iproute2", "iputils-ping", "netbase", "ca-certificates", "bash-completion",
		// for programs
		"python3", "sqlite3", "curl",
		// sendmail(8), configured by the seed; any mail server replaces it
		"msmtp-mta",
		// S3 clients, configured by the seed
		"awscli", "python3-boto3", "s3cmd", "rclone",
	}, ",")
}

// sources is the guest's sources.list, which the build uses as well. It is empty for Debian's own
// archive, for which mmdebstrap writes the same lines.
func (r Recipe) sources(codename string) string {
	if r.Mirror == "" {
		return ""
	}
	return strings.NewReplacer("MIRROR", r.Mirror, "SECURITY", r.SecurityMirror, "CODENAME", codename).Replace(
		"deb MIRROR CODENAME main\ndeb MIRROR CODENAME-updates main\ndeb SECURITY CODENAME-security main\n")
}
