// Package inventory finds out what was changed in a guest since its image: packages, files, units,
// accounts. From that it writes a recipe, which makes the same changes to a new VM.
//
// One script lists the state of a Debian. The build of an image runs it, and the image keeps the
// answer; in a guest it runs as root, over SSH or, while the VM is off, in a guest that reads its disk.
// Read parses an answer, Compare finds the changes between two, Recipe writes them as cloud-init user
// data. Files that packages install or programs generate are left out, as are those that Lodge itself
// writes into each guest.
//
// The guest is not trusted: its answers have limits, and a record that cannot be understood is an
// error. This package never opens a connection, and never mounts a guest's disk.
package inventory

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Script is the shell script that lists the state of a Debian.
//
//go:embed inventory.sh
var Script []byte

// The image's own answer, and its files of which the content is compared, below the guest's root.
const (
	ImageInventory = "/usr/lib/lodge/image-inventory"
	ImageFiles     = "/usr/lib/lodge/image-files.tar.gz"
)

// Limits on an answer.
const (
	maxBytes   = 64 << 20
	maxRecord  = 16 << 10 // a path has at most 4,096 bytes (PATH_MAX)
	maxFiles   = 200_000
	maxRecords = 100_000 // of all other sections together; a desktop with 4,000 packages has 30,000
)

const header = "lodge inventory 1"

// Inventory is the state of a Debian, as far as people change it.
type Inventory struct {
	Packages  map[string]Package // by name, with the architecture if that is foreign
	Conffiles map[string]string  // path → MD5 as the package has it
	Owned     map[string]bool    // paths of packages
	Users     map[string]Account
	Groups    map[string]Account
	Ports     []string          // lines of ss(8)
	Sums      map[string]string // path → MD5 of files up to 1 MiB below /etc and /usr/local
	Files     map[string]File   // by path
	Cut       bool              // there are more files than were read
}

// Package is an installed package.
type Package struct {
	Version string
	Manual  bool // installed by itself, not as a dependency
}

// Account is a line of passwd(5) or group(5): all fields but name and password.
type Account struct {
	ID   int
	Rest string // the fields behind the ID; of a group its members
}

// File is one entry of a file system, without its content.
type File struct {
	Type     byte   // as find(1) prints it: f, d, l, and rarer ones
	Mode     uint32 // permission bits, with setuid, setgid and sticky
	UID, GID int
	Bytes    int64
	Modified time.Time
	Link     string // target of a symbolic link
}

// ErrNone is the error of an answer that is empty: a file that does not exist was read.
var ErrNone = errors.New("there is no inventory")

var errAnswer = errors.New("the guest's answer is not an inventory")

// Read parses the answer of Script. An answer with more files than the limit is cut off there. Errors:
// an answer that ends early, is too long, or is none (ErrNone: it is empty).
func Read(r io.Reader) (Inventory, error) {
	inv := Inventory{
		Packages: map[string]Package{}, Conffiles: map[string]string{}, Owned: map[string]bool{}, Users: map[string]Account{}, Groups: map[string]Account{},
		Sums: map[string]string{}, Files: map[string]File{},
	}
	limited := &io.LimitedReader{R: r, N: maxBytes}
	records := bufio.NewScanner(limited)
	records.Buffer(make([]byte, 4<<10), maxRecord)
	records.Split(untilNUL)
	section, others := "", 0
	for records.Scan() {
		record := records.Text()
		name, begins := strings.CutPrefix(record, "# ")
		if section != "files" {
			others++
		}
		switch {
		case others > maxRecords:
			return inv, fmt.Errorf("%w: it has more than %d records beside files", errAnswer, maxRecords)
		case begins && section == "" && name != header:
			return inv, errAnswer
		case begins && name == "end":
			return inv, nil
		case begins:
			section = name
		case section == "files" && len(inv.Files) == maxFiles:
			inv.Cut = true
			return inv, nil
		default:
			if err := inv.add(section, record, records); err != nil {
				return inv, err
			}
		}
	}
	if err := records.Err(); err != nil {
		return inv, fmt.Errorf("read inventory: %w", err)
	}
	if section == "" && limited.N == maxBytes {
		return inv, ErrNone
	}
	return inv, fmt.Errorf("read inventory: %w", io.ErrUnexpectedEOF)
}

// untilNUL is a bufio.SplitFunc for records that end with NUL.
func untilNUL(data []byte, atEOF bool) (advance int, record []byte, err error) {
	if at := bytes.IndexByte(data, 0); at >= 0 {
		return at + 1, data[:at], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// add parses one record of a section. A file is two: the second has the target of a link.
func (inv *Inventory) add(section, record string, more *bufio.Scanner) error {
	switch section {
	case "packages":
		if f := strings.Split(record, "\t"); len(f) == 3 && f[2] == "installed" {
			inv.Packages[f[0]] = Package{Version: f[1], Manual: inv.Packages[f[0]].Manual}
		}
	case "manual":
		if p, ok := inv.Packages[record]; ok {
			inv.Packages[record] = Package{Version: p.Version, Manual: true}
		}
	case "conffiles":
		if sum, path, ok := strings.Cut(record, "\t"); ok {
			inv.Conffiles[path] = sum
		}
	case "owned":
		inv.Owned[record] = true
	case "sums":
		if sum, path, ok := strings.Cut(record, "  "); ok {
			inv.Sums[path] = sum
		}
	case "users", "groups":
		return inv.addAccount(section, record)
	case "ports":
		inv.Ports = append(inv.Ports, record)
	case "files":
		if !more.Scan() {
			return fmt.Errorf("read inventory: %w", io.ErrUnexpectedEOF)
		}
		path, file, err := parseFile(record, more.Text())
		if err != nil {
			return err
		}
		inv.Files[path] = file
	case "", header:
		return errAnswer
	}
	return nil
}

func (inv *Inventory) addAccount(section, record string) error {
	f := strings.SplitN(record, ":", 3)
	if len(f) < 3 {
		return nil // a line of NIS, or an empty one
	}
	id, err := strconv.Atoi(f[1])
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	all := inv.Users
	if section == "groups" {
		all = inv.Groups
	}
	all[f[0]] = Account{ID: id, Rest: f[2]}
	return nil
}

func parseFile(record, link string) (path string, file File, err error) {
	f := strings.SplitN(record, "\t", 7)
	if len(f) != 7 || len(f[0]) != 1 || !strings.HasPrefix(f[6], "/") {
		return "", file, fmt.Errorf("%w: %.100q", errAnswer, record)
	}
	mode, err1 := strconv.ParseUint(f[1], 8, 12)
	uid, err2 := strconv.Atoi(f[2])
	gid, err3 := strconv.Atoi(f[3])
	size, err4 := strconv.ParseInt(f[4], 10, 64)
	seconds, _, _ := strings.Cut(f[5], ".")
	at, err5 := strconv.ParseInt(seconds, 10, 64)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return "", file, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return f[6], File{Type: f[0][0], Mode: uint32(mode), UID: uid, GID: gid, Bytes: size, Modified: time.Unix(at, 0), Link: link}, nil
}
