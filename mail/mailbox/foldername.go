package mailbox

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"lodge/gateway"
)

// Inbox is the name of the mailbox that mail comes into, in upper or lower case (RFC 9051 §5.1). It is not
// one of the folders.
const Inbox = "INBOX"

// Separator is between the levels of a folder's name.
const Separator = "/"

// Limits of folders.
const (
	MaxFolders     = 128 // of a VM, those that exist from the start included
	MaxFolderBytes = 255 // of a name, in UTF-8
	MaxFolderDepth = 10  // levels of a name
)

// FolderName brings a name into the form in which it is kept: INBOX in upper case. It fails with KindInvalid
// for a name that no folder can have. That is one that is empty, too long or too deep, that is not UTF-8, or
// has an empty level, a "." or "..", a control character, or a "*" or "%", which LIST reads as patterns.
func FolderName(name string) (string, error) {
	levels := strings.Split(name, Separator)
	if strings.EqualFold(levels[0], Inbox) {
		levels[0] = Inbox
	}
	switch {
	case len(name) > MaxFolderBytes:
		return "", gateway.Invalid("a folder's name has at most %d bytes", MaxFolderBytes).WithHint("Choose a shorter one.")
	case len(levels) > MaxFolderDepth:
		return "", gateway.Invalid("a folder's name has at most %d levels", MaxFolderDepth).WithHint("Choose one with fewer.")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, isNoName):
		return "", gateway.Invalid("not a folder's name: %.100q", name).WithHint("It has no control characters, \"*\" or \"%%\".")
	}
	for _, level := range levels {
		if level == "" || level == "." || level == ".." {
			return "", gateway.Invalid("not a folder's name: %.100q", name).WithHint("No level of it is empty, \".\" or \"..\".")
		}
	}
	return strings.Join(levels, Separator), nil
}

func isNoName(r rune) bool {
	return unicode.IsControl(r) || r == '*' || r == '%' || r == utf8.RuneError || r == '\u2028' || r == '\u2029'
}

// parents returns the names above a name, the highest first.
func parents(name string) (all []string) {
	for i, c := range []byte(name) {
		if c == Separator[0] {
			all = append(all, name[:i])
		}
	}
	return all
}

// below reports whether a name is a level or more below another one.
func below(name, parent string) bool { return strings.HasPrefix(name, parent+Separator) }
