package seed

import (
	"os/exec"
	"strings"
	"testing"
)

// The link has the name that OpenSSL gives it.
func TestCALink(t *testing.T) {
	for _, subject := range []string{"/CN=Lodge", "/O=Lodge  on Host/CN= lodge.localhost ROOT", "/C=DE/O=Ä Lodge/OU=x/CN=a"} {
		root, err := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
			"-nodes", "-keyout", "/dev/null", "-utf8", "-subj", subject).Output()
		if err != nil {
			t.Fatalf("openssl req: %v", err)
		}
		hash := exec.CommandContext(t.Context(), "openssl", "x509", "-noout", "-subject_hash")
		hash.Stdin = strings.NewReader(string(root))
		want, err := hash.Output()
		if err != nil {
			t.Fatalf("openssl x509: %v", err)
		}
		if got, err := caLink(root); err != nil || got != strings.TrimSpace(string(want))+".0" {
			t.Errorf("%s: got %s, %v; want %s.0", subject, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"} {
		if link, err := caLink([]byte(bad)); err == nil {
			t.Errorf("%q has the link %s", bad, link)
		}
	}
}
