package seed_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/vmhost/seed"
)

// rootPEM is a certificate of CN=Lodge.
const rootPEM = `-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIURR4saA42cn3xqD+Ub1lNSYW/T9EwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFTG9kZ2UwHhcNMjYxMTIxMTMzNTUyWhcNMzYxMTE4MTMzNTUy
WjAQMQ4wDAYDVQQDDAVMb2RnZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMbW
bmTxg0lLxAaO71Bi2qa471HnfVCBYfdQsQYHJbQ1O0kCX1hctvLlGTFNcbo8uW1A
Y3WwzPAa+hvl9ldMbUCjUzBRMB0GA1UdDgQWBBSBW71ImAVmoWAtUzpuSRGiPvmL
HDAfBgNVHSMEGDAWgBSBW71ImAVmoWAtUzpuSRGiPvmLHDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCIGkzoQ8LDDzP/Y9odTj96Pcb5A4SqbMTfyUw
wm5HibxhAiB/pDGkjNeRJJx7RYtX6xeAx3A/L9gQ+NILWlgL1qKrZg==
-----END CERTIFICATE-----
`

func guest() seed.Guest {
	return seed.Guest{
		VM: gateway.VM{
			Identity: gateway.Identity{
				ID:     gateway.ID{0x7f, 0x8e, 6: 0x40, 8: 0x80, 15: 1},
				Number: 0x1234, Name: "hello", Addr: netip.MustParseAddr("10.213.0.2"),
			},
			HostKey: "ssh-ed25519 AAAAhost",
		},
		Domain:        "lodge.localhost",
		HostKeyPEM:    []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n-----END OPENSSH PRIVATE KEY-----\n"),
		AuthorizedKey: "ssh-ed25519 AAAAlogin lodge host",
		RootPEM:       []byte(rootPEM),
		UserData:      "#cloud-config\nruncmd: [id]\n",
		Random:        []byte("random"),
	}
}

// write makes a seed and returns its bytes.
func write(t *testing.T, g seed.Guest) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := seed.Write(path, g); err != nil {
		t.Fatalf("Write: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != seed.Bytes {
		t.Errorf("the seed has %d bytes; a resumed guest reads %d", info.Size(), seed.Bytes)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, so others can read the host key", info.Mode())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWrite(t *testing.T) {
	g := guest()
	files := readISO(t, write(t, g), joliet)
	want := map[string]string{
		"meta-data": "instance-id: 7f8e0000-0000-4000-8000-000000000001\nlocal-hostname: hello\n",
		"network-config": `version: 2
ethernets:
  eth0:
    match:
      macaddress: "52:54:00:00:12:34"
    set-name: eth0
    addresses: ["10.213.0.2/32"]
    nameservers:
      addresses: [169.254.169.254]
    routes:
      - to: 169.254.169.254/32
        scope: link
      - to: 0.0.0.0/0
        via: 169.254.169.254
        on-link: true
`,
		"user-data": g.UserData,
	}
	for name, text := range want {
		if diff := cmp.Diff(text, files[name]); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	if len(files) != 8 || files["random"] != "random" {
		t.Errorf("%d files in the seed, not 8", len(files))
	}
	if diff := cmp.Diff(files, readISO(t, write(t, g), primary)); diff != "" {
		t.Errorf("the two views of the disk differ:\n%s", diff)
	}
	sh := exec.CommandContext(t.Context(), "sh", "-n")
	sh.Stdin = strings.NewReader(files["setup.sh"])
	if out, err := sh.CombinedOutput(); err != nil {
		t.Errorf("setup.sh is not a script: %v\n%s", err, out)
	}
}

func TestVendorDataIsSetup(t *testing.T) {
	files := readISO(t, write(t, guest()), joliet)
	message, err := mail.ReadMessage(strings.NewReader(files["vendor-data"]))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{}
	for parts := multipart.NewReader(message.Body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, kind)
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "text/cloud-config" && !strings.Contains(string(text), "\nmanage_etc_hosts: false\n") {
			t.Errorf("cloud-init may replace the names in /etc/hosts:\n%s", text)
		}
		if kind == "text/cloud-boothook" && string(text) != files["setup.sh"] {
			t.Errorf("the boothook is not setup.sh:\n%s", cmp.Diff(files["setup.sh"], string(text)))
		}
	}
	if diff := cmp.Diff([]string{"text/cloud-config", "text/cloud-boothook"}, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestFilesInGuest(t *testing.T) {
	g := guest()
	onDisk := readISO(t, write(t, g), joliet)
	have := unpack(t, onDisk["setup.sh"])
	for path, want := range map[string]string{
		"etc/hostname":                              "hello\n",
		"etc/lodge/ssh_host_ed25519_key":            string(g.HostKeyPEM),
		"etc/hosts":                                 "127.0.0.1\tlocalhost\n127.0.1.1\thello\n::1\tlocalhost ip6-localhost ip6-loopback\n",
		"etc/lodge/authorized_keys":                 g.AuthorizedKey + "\n",
		"usr/local/share/ca-certificates/lodge.crt": string(g.RootPEM),
		"etc/ssl/certs/lodge.pem":                   "-> /usr/local/share/ca-certificates/lodge.crt",
		"etc/ssl/certs/b103782e.0":                  "-> lodge.pem",
		"etc/systemd/network/10-lodge.network": "[Match]\nType=ether\nKind=!*\n\n[Link]\nMACAddress=52:54:00:00:12:34\n\n[Network]\nAddress=10.213.0.2/32\n" +
			"LinkLocalAddressing=no\nIPv6AcceptRA=no\n\n[Route]\nGateway=169.254.169.254\nGatewayOnLink=yes\n",
	} {
		if got := have[path].text; got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
	for path, want := range map[string]archived{
		"etc/lodge/ssh_host_ed25519_key": {mode: 0o600, owner: "root"},
		"etc/sudoers.d/lodge":            {mode: 0o440, owner: "root"},
		"home/lodge/Maildir/new/":        {mode: 0o700, owner: "lodge"},
		"home/lodge/.aws/config":         {mode: 0o644, owner: "lodge"},
		"root/.s3cfg":                    {mode: 0o644, owner: "root"},
		"etc/skel/.config/rclone/":       {mode: 0o755, owner: "root"},
	} {
		got, ok := have[path]
		if got.text = ""; !ok || got != want {
			t.Errorf("%s is %+v (there: %v)", path, got, ok)
		}
	}
	for path, file := range have {
		if strings.Contains(file.text, "@NAME@") || strings.Contains(file.text, "@HOST@") || strings.HasPrefix(path, "/") {
			t.Errorf("%s has an unfilled template, or is not relative", path)
		}
		if string(g.HostKeyPEM) == file.text && file.mode&0o077 != 0 {
			t.Errorf("others can read the host key in %s", path)
		}
	}
	if readme := have["etc/lodge/README"].text; !strings.Contains(readme, "https://hello.lodge.localhost\n") || !strings.Contains(readme, "https://hello.lodge.internal ") {
		t.Errorf("README:\n%s", have["etc/lodge/README"].text)
	}
	if conf, aliases := have["etc/msmtprc"].text, have["etc/lodge/aliases"].text; !strings.Contains(conf, "\nfrom %U@hello.lodge.localhost\n") || !strings.Contains(aliases, "\ndefault: lodge@hello.lodge.localhost\n") {
		t.Errorf("msmtp:\n%s%s", conf, aliases)
	}
	if conf := have["etc/systemd/system.conf.d/10-lodge.conf"].text; !strings.Contains(conf, "\nDefaultEnvironment=AWS_ENDPOINT_URL_S3=http://s3.lodge.internal ") {
		t.Errorf("system.conf.d:\n%s", conf)
	}
	if diff := cmp.Diff(have, untar(t, strings.NewReader(onDisk["files.tar"])), cmp.AllowUnexported(archived{})); diff != "" {
		t.Errorf("files.tar differs from the archive in setup.sh:\n%s", diff)
	}
}

func TestWriteWithoutRoot(t *testing.T) {
	g := guest()
	g.RootPEM, g.UserData = nil, ""
	files := readISO(t, write(t, g), joliet)
	if _, ok := unpack(t, files["setup.sh"])["usr/local/share/ca-certificates/lodge.crt"]; ok {
		t.Error("the archive has a certificate")
	}
	if text, ok := files["user-data"]; !ok || text != "" {
		t.Errorf("user-data is %q, want an empty file", text)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, change := range map[string]func(*seed.Guest){
		"no name":     func(g *seed.Guest) { g.VM.Name = "" },
		"bad name":    func(g *seed.Guest) { g.VM.Name = "a\nb: c" },
		"no id":       func(g *seed.Guest) { g.VM.ID = gateway.ID{} },
		"no address":  func(g *seed.Guest) { g.VM.Addr = netip.Addr{} },
		"IPv6":        func(g *seed.Guest) { g.VM.Addr = netip.IPv6Loopback() },
		"no host key": func(g *seed.Guest) { g.HostKeyPEM = nil },
		"two keys":    func(g *seed.Guest) { g.AuthorizedKey = "ssh-ed25519 A\nssh-ed25519 B" },
	} {
		t.Run(name, func(t *testing.T) {
			g := guest()
			change(&g)
			path := filepath.Join(t.TempDir(), "seed.iso")
			if err := seed.Write(path, g); gateway.KindOf(err) != gateway.KindInvalid {
				t.Errorf("Write: %v", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
}

// A seed that cannot be written leaves the old one, and no draft.
func TestWriteFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil { // so that the rename fails
		t.Fatal(err)
	}
	if err := seed.Write(path, guest()); err == nil {
		t.Fatal("Write did not fail")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// Any user data is on the disk byte for byte, and no other file depends on it.
func FuzzUserData(f *testing.F) {
	f.Add("")
	f.Add("#cloud-config\n")
	f.Add("\x00\xff\r\n--lodge-vendor-data\n@FILES@@SETUP@")
	f.Add(strings.Repeat("x", 2048))
	f.Add(strings.Repeat("y", 2049))
	f.Fuzz(func(t *testing.T, userData string) {
		g := guest()
		base := readISO(t, write(t, g), joliet)
		g.UserData = userData
		files := readISO(t, write(t, g), joliet)
		if files["user-data"] != userData {
			t.Errorf("user data %q came back as %q", userData, files["user-data"])
		}
		delete(base, "user-data")
		delete(files, "user-data")
		if diff := cmp.Diff(base, files); diff != "" {
			t.Error(diff)
		}
	})
}

type archived struct {
	text  string
	mode  int64
	owner string
}

// unpack reads the archive out of setup.sh as the shell would.
func unpack(t *testing.T, setup string) map[string]archived {
	t.Helper()
	_, rest, _ := strings.Cut(setup, "<<'END' | unpack -z\n")
	text, _, ok := strings.Cut(rest, "\nEND\n")
	if !ok {
		t.Fatalf("setup.sh has no archive:\n%s", setup)
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	return untar(t, z)
}

func untar(t *testing.T, archive io.Reader) map[string]archived {
	t.Helper()
	files := map[string]archived{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeSymlink {
			body = []byte("-> " + h.Linkname)
		}
		files[h.Name] = archived{string(body), h.Mode, h.Uname}
	}
}

// The two volume descriptors of an ISO 9660 image.
const (
	primary = 16
	joliet  = 17
)

// readISO reads the root directory of an ISO 9660 file system: names as Linux shows them, and
// contents.
func readISO(t *testing.T, image []byte, descriptor int) map[string]string {
	t.Helper()
	const sector = 2048
	d := image[descriptor*sector:]
	if string(d[1:6]) != "CD001" || len(image)%sector != 0 || int(binary.LittleEndian.Uint32(d[80:]))*sector > len(image) {
		t.Fatalf("not an ISO image of %d bytes", len(image))
	}
	if got := shown(d[40:72], descriptor); got != "cidata" {
		t.Errorf("the label is %q", got)
	}
	files := map[string]string{}
	dir := image[int(binary.LittleEndian.Uint32(d[158:]))*sector:][:sector]
	for ; dir[0] != 0; dir = dir[dir[0]:] {
		begin, size := int(binary.LittleEndian.Uint32(dir[2:]))*sector, int(binary.LittleEndian.Uint32(dir[10:]))
		if int(binary.BigEndian.Uint32(dir[6:]))*sector != begin || int(binary.BigEndian.Uint32(dir[14:])) != size {
			t.Errorf("the two byte orders differ in a directory record")
		}
		if dir[25]&2 == 0 {
			files[shown(dir[33:33+dir[32]], descriptor)] = string(image[begin : begin+size])
		}
	}
	return files
}

func shown(name []byte, descriptor int) string {
	if descriptor == joliet {
		units := make([]uint16, len(name)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(name[2*i:])
		}
		return strings.TrimRight(string(utf16.Decode(units)), " ")
	}
	plain, _, _ := bytes.Cut(name, []byte(";"))
	return strings.TrimRight(strings.ToLower(string(plain)), ". ")
}
