// Package seed writes the NoCloud disk that turns a copy of an image into a particular VM.
//
// The disk is a small ISO 9660 file with the volume label cidata. It has the four files that any
// cloud image with cloud-init reads (meta-data, network-config, vendor-data, user-data:
// https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html), setup.sh, which is all
// that Lodge itself changes in a guest, and random bytes. Lodge's own images run the script early in
// the boot, or when a guest is resumed; in other images cloud-init runs the same script as a boothook
// in the vendor data. The user data is copied byte for byte and cannot replace any of it by accident,
// as a second list under one YAML key would.
//
// The script contains its files as an archive, so no value is ever quoted for a shell or for YAML.
// The disk has the archive once more, for guests that mount it, and the input of "ip -batch" for
// those that are resumed.
package seed

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Guest is the content of a seed.
type Guest struct {
	VM            gateway.VM // its ID becomes the instance-id; name, address, MAC and host key are used as well
	Domain        string     // such as "lodge.localhost"
	HostKeyPEM    []byte     // the private half of VM.HostKey, as OpenSSH writes it
	AuthorizedKey string     // the host's own login key, as one authorized_keys line
	RootPEM       []byte     // the CA that the guest trusts from its first boot; none if empty
	UserData      string     // cloud-init user data, verbatim; may be empty; vmhost has checked it
	Random        []byte     // new for each seed: the guest adds it to its random number generator
}

// Write replaces path by the seed, with mode 0600 (it contains the host key). When Write returns
// nil, the file is complete and synced; after an error it may be of no use. It fails with KindInvalid
// for a guest that could not boot with the seed.
func Write(path string, g Guest) error {
	if err := g.check(); err != nil {
		return err
	}
	files, err := g.seedFiles()
	if err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	content := iso(label, files)
	if len(content) > Bytes {
		return gateway.Invalid("the seed has %d bytes; at most %d are possible", len(content), Bytes)
	}
	if err := durable.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	if err := errors.Join(os.Truncate(path, Bytes), durable.Sync(path)); err != nil { // the rest is a hole
		return fmt.Errorf("write seed: %w", err)
	}
	return nil
}

// Bytes is the size of every seed: the kernel of a guest that was resumed keeps the size that the
// disk had in its template.
const Bytes = 4 << 20

// label is the volume label by which cloud-init and lodge-seed.service find the disk.
const label = "cidata"

func (g Guest) check() error {
	if err := gateway.CheckName(g.VM.Name); err != nil {
		return err //nolint:wrapcheck // its text is for people
	}
	switch {
	case !g.VM.Known() || !g.VM.Addr.Is4():
		return gateway.Invalid("the VM %q has no identity or no IPv4 address yet", g.VM.Name)
	case len(g.HostKeyPEM) == 0 || g.VM.HostKey == "" || strings.ContainsAny(g.VM.HostKey+g.AuthorizedKey, "\r\n"):
		return gateway.Invalid("the VM %q has no SSH host key, or a key of more than one line", g.VM.Name)
	}
	return nil
}

// seedFiles are the files on the disk.
func (g Guest) seedFiles() ([]file, error) {
	archive, err := g.archive()
	if err != nil {
		return nil, err
	}
	packed, err := compress(archive)
	if err != nil {
		return nil, err
	}
	setup := strings.Replace(text("setup.sh"), "@FILES@", wrap(base64.StdEncoding.EncodeToString(packed)), 1)
	return []file{
		{"files.tar", archive},
		{"ip-batch", []byte(g.fill("files/ip-batch"))},
		{"meta-data", []byte(g.fill("files/meta-data"))},
		{"network-config", []byte(g.fill("files/network-config"))},
		{"random", g.Random},
		{"setup.sh", []byte(setup)},
		{"user-data", []byte(g.UserData)},
		{"vendor-data", []byte(strings.Replace(text("files/vendor-data"), "@SETUP@", setup, 1))},
	}, nil
}

// wrap breaks base64 into lines as MIME has them (RFC 2045 §6.8).
func wrap(s string) string {
	const width = 76
	var b strings.Builder
	for ; len(s) > width; s = s[width:] {
		b.WriteString(s[:width] + "\n")
	}
	b.WriteString(s)
	return b.String()
}
