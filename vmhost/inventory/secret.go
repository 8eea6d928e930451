package inventory

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// Names of files that hold secrets by their nature.
var (
	secretName = regexp.MustCompile(`(?i)^(id_(rsa|dsa|ecdsa|ed25519)(_sk)?|ssh_host_.*_key|.*\.(key|p12|pfx|jks|kdbx|keytab|ppk)|\.?(netrc|pgpass|my\.cnf|git-credentials|npmrc|pypirc|dockercfg|vault-token|htpasswd|env(\..+)?)|shadow-?|gshadow-?|credentials(\.json|\.db)?|secrets?(\..+)?|.*token.*|.*password.*|.*_history|secring\..*|otp.*)$`)
	secretPath = regexp.MustCompile(`/(\.ssh/[^/]*_?key|\.gnupg/.*|\.aws/(credentials|cli/.*|sso/.*)|\.docker/config\.json|\.kube/.*|\.config/(gh|gcloud|doctl|op)/.*|\.password-store/.*|ssl/private/.*|letsencrypt/(archive|live|accounts|keys)/.*|wireguard/.*|openvpn/.*|NetworkManager/system-connections/.*|sasldb2|opendkim/keys/.*)$`)
	secretText = regexp.MustCompile(`(?i)-----BEGIN ([A-Z0-9 ]+ )?PRIVATE KEY( BLOCK)?-----|age-secret-key-1|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[0-9A-Za-z]{30,}|\bgithub_pat_[0-9A-Za-z_]{30,}|\bglpat-[0-9A-Za-z_-]{20,}|\bxox[abpors]-[0-9A-Za-z-]{10,}|\bsk[-_](live|test|ant|proj)?[-_]?[0-9A-Za-z_-]{20,}|\bAIza[0-9A-Za-z_-]{35}|\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.` +
		`|(password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key|auth|credential)s?["']?[ \t]*[:=][ \t]*["']?[^\s"'#$<{%*;,()\[\]]{6,}(["';,]|\s|$)` +
		`|[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@]{3,}@|(?m:^[^:\s]+:\$(2[aby]|apr1|[156y]|argon2[a-z]*)\$)`)
)

// secret returns why a file may hold a secret; empty if nothing points to one. It errs on the side of
// secrets: who wants such a file in a recipe adds it by hand.
func secret(at string, content []byte) string {
	switch {
	case secretName.MatchString(path.Base(at)), secretPath.MatchString(at):
		return "its name is that of a secret"
	case strings.HasPrefix(at, "/etc/ssh/") && bytes.Contains(content, []byte("PRIVATE KEY")), secretText.Match(content):
		return "it looks as if there were a secret in it"
	}
	return ""
}

// Shows reports whether the content of a file may be shown: it is text, and does not look like a
// secret.
func Shows(at string, content []byte) bool { return isText(content) && secret(at, content) == "" }
