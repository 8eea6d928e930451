// Package xconnect makes HTTP/2 of net/http accept extended CONNECT (RFC 8441), which carries
// WebSockets. Import it for that alone.
//
// net/http reads the switch from the environment variable GODEBUG while it is initialized, and from
// nowhere else: it is none of the settings that a go:debug line or go.mod may have. Packages are
// initialized in the order of their import paths once their own imports are (Go specification, "Program
// initialization"), so this one, which imports os alone, goes before net/http. A server whose settings
// lack ENABLE_CONNECT_PROTOCOL fails the tests of package https.
package xconnect

import (
	"os"
	"strings"
)

const setting = "http2xconnect="

var _ = enable()

// enable leaves a setting that is there already, and all others.
func enable() error {
	all := os.Getenv("GODEBUG")
	if strings.Contains(all, setting) {
		return nil
	}
	return os.Setenv("GODEBUG", strings.TrimPrefix(all+","+setting+"1", ",")) // it fails for an invalid name alone
}
