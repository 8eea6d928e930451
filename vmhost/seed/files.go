package seed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"strings"

	"lodge/gateway"
)

// templates are setup.sh and the files for it and for cloud-init. @WORD@ stands for a value of the
// guest.
//
//go:embed setup.sh files
var templates embed.FS

func text(name string) string {
	b, err := templates.ReadFile(name)
	if err != nil {
		panic(err) // the names are constants of this package, and a test covers them
	}
	return string(b)
}

// fill puts the guest's values into a template. All are checked; none has a character that any of
// the formats treats as special.
func (g Guest) fill(name string) string {
	return strings.NewReplacer(
		"@ID@", g.VM.ID.String(), "@NAME@", g.VM.Name, "@HOST@", g.VM.Name+"."+g.Domain,
		"@MAC@", g.VM.MAC().String(), "@ADDR@", g.VM.Addr.String(),
	).Replace(text(name))
}

// entry is a file in the guest, a directory if its path ends with "/", or a symbolic link.
type entry struct {
	path, text string // text is a link's target
	mode       int64  // 0 for a link
	owner      string
}

// entries are the files that Lodge puts into a guest.
func (g Guest) entries() ([]entry, error) {
	const root = "root"
	all := []entry{
		{"etc/hostname", g.VM.Name + "\n", 0o644, root},
		// not the public name, which leads to the gateway by DNS
		{"etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\t" + g.VM.Name + "\n::1\tlocalhost ip6-localhost ip6-loopback\n", 0o644, root},
		{"etc/systemd/network/10-lodge.network", g.fill("files/network"), 0o644, root},
		{"etc/systemd/system.conf.d/", "", 0o755, root},
		{"etc/systemd/system.conf.d/10-lodge.conf", systemdConfig(text("files/environment")), 0o644, root},
		{"etc/ssh/sshd_config.d/10-lodge.conf", text("files/sshd.conf"), 0o644, root},
		{"etc/sudoers.d/lodge", gateway.GuestUser + " ALL=(ALL) NOPASSWD:ALL\n", 0o440, root},
		{"etc/lodge/ssh_host_ed25519_key", string(g.HostKeyPEM), 0o600, root},
		{"etc/lodge/ssh_host_ed25519_key.pub", g.VM.HostKey + "\n", 0o644, root},
		{"etc/lodge/authorized_keys", g.AuthorizedKey + "\n", 0o644, root},
		{"etc/lodge/environment", text("files/environment"), 0o644, root},
		{"etc/lodge/README", g.fill("files/README"), 0o644, root},
		{"etc/msmtprc", g.fill("files/msmtprc"), 0o644, root},
		{"etc/lodge/aliases", g.fill("files/aliases"), 0o644, root},
	}
	if len(g.RootPEM) > 0 {
		link, err := caLink(g.RootPEM)
		if err != nil {
			return nil, err
		}
		all = append(all, entry{caFile[1:], string(g.RootPEM), 0o644, root},
			entry{"etc/ssl/certs/lodge.pem", caFile, 0, root},
			entry{"etc/ssl/certs/" + link, "lodge.pem", 0, root})
	}
	for _, dir := range []string{"", "tmp/", "new/", "cur/"} {
		all = append(all, entry{"home/" + gateway.GuestUser + "/Maildir/" + dir, "", 0o700, gateway.GuestUser})
	}
	all = append(all, settings("root/", root)...)
	all = append(all, settings("etc/skel/", root)...)
	return append(all, settings("home/"+gateway.GuestUser+"/", gateway.GuestUser)...), nil
}

// Paths has the absolute path of each file and directory that Lodge writes into a guest.
func Paths() map[string]bool {
	entries, _ := Guest{}.entries() // only a certificate can be wrong
	paths := map[string]bool{"/etc/lodge": true, "/etc/lodge/instance": true, caFile: true}
	for _, e := range entries {
		paths["/"+strings.TrimSuffix(e.path, "/")] = true
	}
	return paths
}

// caFile is the certificate of the host's authority.
const caFile = "/usr/local/share/ca-certificates/lodge.crt"

// settings configure S3 clients for the host's S3, below a home directory.
func settings(home, owner string) []entry {
	return []entry{
		{home + ".aws/", "", 0o755, owner},
		{home + ".aws/config", text("files/aws"), 0o644, owner},
		{home + ".s3cfg", text("files/s3cfg"), 0o644, owner},
		{home + ".config/", "", 0o755, owner},
		{home + ".config/rclone/", "", 0o755, owner},
		{home + ".config/rclone/rclone.conf", text("files/rclone.conf"), 0o644, owner},
	}
}

// systemdConfig gives all units the variables of an environment file (systemd-system.conf(5),
// DefaultEnvironment).
func systemdConfig(environment string) string {
	return "[Manager]\nDefaultEnvironment=" + strings.Join(strings.Fields(environment), " ") + "\n"
}

// archive is a tar archive of the entries, the same for the same guest. Owners are names: the guest
// assigns the numbers.
func (g Guest) archive() ([]byte, error) {
	entries, err := g.entries()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, e := range entries {
		if err := e.pack(t); err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.path, err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return b.Bytes(), nil
}

func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		return nil, fmt.Errorf("compress files: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress files: %w", err)
	}
	return b.Bytes(), nil
}

// pack writes an entry to an archive.
func (e entry) pack(t *tar.Writer) error {
	h := &tar.Header{Name: e.path, Mode: e.mode, Uname: e.owner, Gname: e.owner, Typeflag: tar.TypeReg, Size: int64(len(e.text))}
	switch {
	case strings.HasSuffix(e.path, "/"):
		h.Typeflag = tar.TypeDir
	case e.mode == 0:
		h.Typeflag, h.Linkname, h.Mode, h.Size = tar.TypeSymlink, e.text, 0o777, 0
	}
	if err := t.WriteHeader(h); err != nil {
		return err //nolint:wrapcheck // the caller names the entry
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := t.Write([]byte(e.text))
	return err //nolint:wrapcheck // as above
}
