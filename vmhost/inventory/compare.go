package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lodge/gateway"
)

var (
	// written after the boot by programs, from what is listed
	generated = regexp.MustCompile(`/\.sudo_as_admin_successful$|^/etc/((passwd|group|shadow|gshadow|subuid|subgid)-?|ld\.so\.cache|\.pwd\.lock|\.updated|mailcap|mtab|adjtime|machine-id|environment|rc[0-6S]\.d(/.*)?|ssh/ssh_host_\w+_key(\.pub)?|ca-certificates\.conf)$`)
	inHome    = regexp.MustCompile(`^/home/[^/]+/(.+)$`)
	unitLink  = regexp.MustCompile(`^/etc/systemd/system/[^/]+\.(?:wants|requires|upholds)/([^/]+)$`)
	maskLink  = regexp.MustCompile(`^/etc/systemd/system/([^/]+)$`)
	portLine  = regexp.MustCompile(`^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+)\s+\S+(?:\s+users:\(\("([^"]+)")?`)
)

// Compare returns what is different in now. It leaves out unchanged files of packages, files that
// programs generate, and Lodge's own, whose paths are in lodges.
func Compare(image, now Inventory, lodges map[string]bool) gateway.Changes {
	c := gateway.Changes{
		Packages: comparePackages(image, now),
		Accounts: append(compareAccounts("group", image.Groups, now.Groups), compareAccounts("user", image.Users, now.Users)...),
		Units:    []gateway.UnitChange{}, Files: []gateway.FileChange{}, Ports: ports(now.Ports), Cut: now.Cut,
	}
	names := namesOf(now)
	for _, at := range union(image.Files, now.Files) {
		if lodges[at] || generated.MatchString(at) {
			continue
		}
		was, before := image.Files[at]
		is, after := now.Files[at]
		if unit, ok := unitChange(at, was, before, is, after); ok {
			if unit.Change != "" {
				c.Units = append(c.Units, unit)
			}
			continue
		}
		if f, ok := compareFile(at, image, now); ok {
			f.Owner, f.Group = names.user(f.Owner), names.group(f.Group)
			c.Files = append(c.Files, f)
		}
	}
	c.Files = withoutPackageDirectories(c.Files, now)
	c.Units = slices.CompactFunc(c.Units, func(a, b gateway.UnitChange) bool { return a == b })
	return c
}

func comparePackages(image, now Inventory) []gateway.PackageChange {
	all := []gateway.PackageChange{}
	for _, name := range union(image.Packages, now.Packages) {
		was, before := image.Packages[name]
		is, after := now.Packages[name]
		p := gateway.PackageChange{Name: name, Version: is.Version, Was: was.Version, Manual: is.Manual}
		switch {
		case !before:
			p.Change = gateway.Added
		case !after:
			p.Change, p.Manual = gateway.Gone, was.Manual
		case was.Version != is.Version:
			p.Change = gateway.Changed
		default:
			continue
		}
		all = append(all, p)
	}
	return all
}

func compareAccounts(kind string, image, now map[string]Account) []gateway.AccountChange {
	all := []gateway.AccountChange{}
	for _, name := range union(image, now) {
		was, before := image[name]
		is, after := now[name]
		a := gateway.AccountChange{Kind: kind, Name: name, ID: is.ID, Rest: is.Rest}
		switch {
		case !before:
			a.Change = gateway.Added
		case !after:
			a.Change, a.ID, a.Rest = gateway.Gone, was.ID, was.Rest
		case was != is:
			a.Change = gateway.Changed
		default:
			continue
		}
		all = append(all, a)
	}
	return all
}

// unitChange reports whether a path is a link by which systemd enables or masks a unit; its Change is
// empty if that is as it was.
func unitChange(at string, was File, before bool, is File, after bool) (gateway.UnitChange, bool) {
	if m := unitLink.FindStringSubmatch(at); m != nil {
		unit := gateway.UnitChange{Name: m[1]}
		switch {
		case !before && after:
			unit.Change = "enabled"
		case before && !after:
			unit.Change = "disabled"
		}
		return unit, true
	}
	m := maskLink.FindStringSubmatch(at)
	masked, wasMasked := after && is.Link == "/dev/null", before && was.Link == "/dev/null"
	if m == nil || !masked && !wasMasked {
		return gateway.UnitChange{}, false
	}
	unit := gateway.UnitChange{Name: m[1]}
	switch {
	case masked && !wasMasked:
		unit.Change = "masked"
	case !masked && !after:
		unit.Change = "unmasked"
	case !masked: // replaced by a file, which is listed
		return unit, false
	}
	return unit, true
}

// compareFile returns the change of a path, and whether it is one to list. Owner and group are
// numbers.
func compareFile(at string, image, now Inventory) (gateway.FileChange, bool) {
	was, before := image.Files[at]
	is, after := now.Files[at]
	f := shown(at, is)
	switch {
	case !before && (ofPackage(at, is, now) || ofSkeleton(at, is, now)):
		return f, false
	case !before:
		f.Change = gateway.Added
	case !after:
		f = shown(at, was)
		f.Change = gateway.Gone
		_, conffile := image.Conffiles[at]
		_, still := now.Conffiles[at]
		return f, !now.Cut && (!conffile || still) // else its package is gone, too
	default:
		f.Change, f.What = gateway.Changed, differences(at, image, now)
		untouched := slices.Equal(f.What, []string{"content"}) && ofPackage(at, is, now) // another version of the package
		return f, len(f.What) > 0 && !untouched
	}
	return f, true
}

// ofPackage reports whether a file is as its package has it, as far as that is known.
func ofPackage(at string, is File, now Inventory) bool {
	if sum, ok := now.Conffiles[at]; ok && is.Type == 'f' {
		return now.Sums[at] == sum
	}
	return now.Owned[at]
}

// ofSkeleton reports whether a file of a home directory is as useradd(8) has copied it.
func ofSkeleton(at string, is File, now Inventory) bool {
	m := inHome.FindStringSubmatch(at)
	if m == nil {
		return false
	}
	skeleton, ok := now.Files["/etc/skel/"+m[1]]
	return ok && skeleton.Type == is.Type && (is.Type == 'd' || skeleton.Bytes == is.Bytes)
}

func differences(at string, image, now Inventory) []string {
	was, is := image.Files[at], now.Files[at]
	if was.Type != is.Type {
		return []string{"type"}
	}
	var what []string
	switch is.Type {
	case 'f':
		before, ok1 := image.Sums[at]
		after, ok2 := now.Sums[at]
		known := ok1 && ok2
		if known && before != after || !known && (was.Bytes != is.Bytes || !was.Modified.Equal(is.Modified)) {
			what = append(what, "content")
		}
	case 'l':
		if was.Link != is.Link {
			what = append(what, "content")
		}
		return what // a link's mode has no meaning
	}
	if was.Mode != is.Mode {
		what = append(what, "mode")
	}
	if was.UID != is.UID || was.GID != is.GID {
		what = append(what, "owner")
	}
	return what
}

func shown(at string, f File) gateway.FileChange {
	kind := map[byte]string{'f': "file", 'd': "directory", 'l': "link"}[f.Type]
	return gateway.FileChange{
		Path: at, Type: cmp.Or(kind, "other"), Bytes: f.Bytes, Mode: fmt.Sprintf("%04o", f.Mode),
		Owner: strconv.Itoa(f.UID), Group: strconv.Itoa(f.GID), Link: f.Link, Modified: f.Modified.UTC(),
	}
}

// withoutPackageDirectories removes new directories whose new content, if any, is all of packages.
func withoutPackageDirectories(files []gateway.FileChange, now Inventory) []gateway.FileChange {
	holds := map[string]bool{}  // directories with something that is listed
	filled := map[string]bool{} // directories with anything
	for _, f := range files {
		if f.Type != "directory" || f.Change != gateway.Added {
			markParents(holds, f.Path)
		}
	}
	for at, f := range now.Files {
		if f.Type != 'd' {
			markParents(filled, at)
		}
	}
	return slices.DeleteFunc(files, func(f gateway.FileChange) bool {
		return f.Type == "directory" && f.Change == gateway.Added && filled[f.Path] && !holds[f.Path]
	})
}

func markParents(marked map[string]bool, at string) {
	for dir := path.Dir(at); dir != "/" && !marked[dir]; dir = path.Dir(dir) {
		marked[dir] = true
	}
}

// names has the names of users and groups by number.
type names struct{ users, groups map[string]string }

func namesOf(inv Inventory) names {
	byID := func(all map[string]Account) map[string]string {
		m := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			id := strconv.Itoa(all[name].ID)
			m[id] = cmp.Or(m[id], name)
		}
		return m
	}
	return names{byID(inv.Users), byID(inv.Groups)}
}

func (n names) user(id string) string  { return cmp.Or(n.users[id], id) }
func (n names) group(id string) string { return cmp.Or(n.groups[id], id) }

// ports parses lines of ss(8).
func ports(lines []string) []gateway.OpenPort {
	all := []gateway.OpenPort{}
	for _, line := range lines {
		if m := portLine.FindStringSubmatch(line); m != nil {
			all = append(all, gateway.OpenPort{Protocol: m[1], Addr: strings.ReplaceAll(m[2], "%lo", ""), Program: m[3]})
		}
	}
	slices.SortFunc(all, func(a, b gateway.OpenPort) int {
		return cmp.Or(strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.Addr, b.Addr))
	})
	return slices.Compact(all)
}

// union has the keys of both, in order.
func union[V any](a, b map[string]V) []string {
	all := make(map[string]struct{}, len(b))
	for k := range a {
		all[k] = struct{}{}
	}
	for k := range b {
		all[k] = struct{}{}
	}
	return slices.Sorted(maps.Keys(all))
}
