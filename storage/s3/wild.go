package s3

import "strings"

// A part of a pattern between two stars is searched for. With ? in it that takes the product of the lengths,
// so a policy has few of those, and short ones.
const (
	maxUnclear      = 8  // in a policy
	maxUnclearBytes = 64 // each
)

// wild reports whether a pattern matches a text: * is any text, and ? any byte.
func wild(pattern, text string) bool {
	first, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return len(text) == len(pattern) && fits(pattern, text)
	}
	at := strings.LastIndexByte(rest, '*')
	last := rest[at+1:]
	if len(text) < len(first)+len(last) || !fits(first, text) || !fits(last, text[len(text)-len(last):]) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for part := range strings.SplitSeq(rest[:max(at, 0)], "*") {
		i := find(part, text)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

// fits reports whether a text begins with a part of a pattern.
func fits(part, text string) bool {
	if len(text) < len(part) {
		return false
	}
	for i := range len(part) {
		if part[i] != '?' && part[i] != text[i] {
			return false
		}
	}
	return true
}

// find is strings.Index for a part of a pattern.
func find(part, text string) int {
	if strings.IndexByte(part, '?') < 0 {
		return strings.Index(text, part)
	}
	for i := 0; i+len(part) <= len(text); i++ {
		if fits(part, text[i:]) {
			return i
		}
	}
	return -1
}

// unclear counts the parts between two stars that have a ?. ok is false if one is too long.
func unclear(pattern string) (n int, ok bool) {
	parts := strings.Split(pattern, "*")
	for i, part := range parts {
		if i == 0 || i == len(parts)-1 || strings.IndexByte(part, '?') < 0 {
			continue
		}
		if n++; len(part) > maxUnclearBytes {
			return n, false
		}
	}
	return n, true
}
