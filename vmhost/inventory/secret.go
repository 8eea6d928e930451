package inventory

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// Names of files that hold secrets by their nature.
var (
	secretName = regexp.MustCompile(`(?i)^(id_(rsa|dsa|ecdsa|ed25519)(_sk)?|ssh_host_.*_key|.*\.(key|p12|pfx|jks|kdbx|keytab|ppk)|\.?(netrc|pgpass|my\.cnf|npmrc|pypirc|dockercfg|htpasswd|env(\..+)?)|.*(secret|token|passw|passphrase|credential|shadow|sasldb).*|.*_history|secring\..*|otp.*)$`)
	secretPath = regexp.MustCompile(`/(\.ssh/[^/]*_?key|\.gnupg/.*|\.aws/(cli|sso)/.*|\.docker/config\.json|\.kube/.*|\.config/(gh|gcloud|doctl|op)/.*|\.password-store/.*|ssl/private/.*|letsencrypt/(archive|live|accounts|keys)/.*|wireguard/.*|openvpn/.*|NetworkManager/system-connections/.*|opendkim/keys/.*)$`)
	secretText = regexp.MustCompile(`(?i)-----BEGIN ([A-Z0-9 ]+ )?PRIVATE KEY( BLOCK)?-----|age-secret-key-1|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[0-9A-Za-z]{30,}|\bgithub_pat_[0-9A-Za-z_]{30,}|\bglpat-[0-9A-Za-z_-]{20,}|\bxox[abpors]-[0-9A-Za-z-]{10,}|\bsk[-_](live|test|ant|proj)?[-_]?[0-9A-Za-z_-]{20,}|\bAIza[0-9A-Za-z_-]{35}|\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}` +
		`|[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]{2,}@|(?m:^[^:\s]+:\$(2[aby]|apr1|[156y]|argon2[a-z]*)\$)`)
	// a name of which a part stands for a secret, and what is set to it; in a quoted value, in XML, or behind a space as well
	secretSet  = regexp.MustCompile(`(?im)(?:pass(?:wd|word|phrase|code)?|secret|token|credential|(?:api|access|private|auth|secret|encryption|signing)[_-]?key|\bsalt|requirepass|masterauth)\w*["']?\]?[ \t]*(=>|:=|[:=,>]|[ \t])[ \t]*(.*)$`)
	plainValue = regexp.MustCompile(`^(["'][^"']*["']|[^\s"'()\[\]]+)`)
	reference  = regexp.MustCompile(`(?i)^["']?(\$|%|\{\{|<%|@@|\*+["']?$|["']?$|(true|false|none|null|nil|yes|no|on|off|required|optional|sufficient|requisite|include|prompt|str|string|bool|int|bytes)\b)`)
)

const whySecret = "it looks as if there were a secret in it"

// secret returns why a file may hold a secret; empty if nothing points to one. It errs on the side of
// secrets: who wants such a file in a recipe adds it by hand.
func secret(at string, content []byte) string {
	switch {
	case secretName.MatchString(path.Base(at)), secretPath.MatchString(at):
		return "its name is that of a secret"
	case hasSecret(content), setsSecret(content):
		return whySecret
	}
	return ""
}

// What a match of secretText and of secretSet begins with or contains, in lower case and between bars. They
// are looked for first, and the expressions run around them alone: they take a second for each megabyte.
const (
	textHints = "private key|age-secret-key-1|akia|asia|ghp_|gho_|ghu_|ghs_|ghr_|github_pat_|glpat-|xox|sk-|sk_|aiza|eyj|://|:$"
	setHints  = "pass|secret|token|credential|key|salt|masterauth"
)

// Around a hint. No secret that is looked for is longer; a value that is set goes on to the end of its line.
const (
	beforeHint = 64
	behindHint = 512
	maxLine    = 4 << 10
)

// effort is how many bytes the expressions may go over for a content of so many bytes. A file that needs
// more was made to take long, and counts as one with a secret.
func effort(bytes int) int { return 4*bytes + 64<<10 }

// hasSecret reports whether content has the form of a secret anywhere.
func hasSecret(content []byte) bool {
	left := effort(len(content))
	return hinted(content, textHints, func(at int, hint string) bool {
		to := min(len(content), at+behindHint)
		if hint == "://" && !namesPassword(content[at+len(hint):to]) {
			return false
		}
		from := max(0, at-beforeHint)
		left -= to - from
		return left < 0 || secretText.Match(content[from:to])
	})
}

// namesPassword reports whether the rest of a URL begins with a user and a password.
func namesPassword(rest []byte) bool {
	end := bytes.IndexAny(rest, "/@ \t\n")
	return end > 0 && rest[end] == '@' && bytes.IndexByte(rest[:end], ':') >= 0
}

// hinted calls found for each place where content has a hint, until it returns true.
func hinted(content []byte, hints string, found func(at int, hint string) bool) bool {
	lower := make([]byte, len(content))
	for i, c := range content {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	for hint := range strings.SplitSeq(hints, "|") {
		for at := 0; ; at += len(hint) {
			next := bytes.Index(lower[at:], []byte(hint))
			if next < 0 {
				break
			}
			if at += next; found(at, hint) {
				return true
			}
		}
	}
	return false
}

// setsSecret reports whether a line gives a value to something whose name is that of a secret. A value that
// refers to another place (an environment variable, a call) is none.
func setsSecret(content []byte) bool {
	left := effort(len(content))
	return hinted(content, setHints, func(at int, _ string) bool {
		from := max(0, at-beforeHint)
		from += bytes.LastIndexByte(content[from:at], '\n') + 1
		to := min(len(content), at+maxLine)
		if end := bytes.IndexByte(content[at:to], '\n'); end >= 0 {
			to = at + end
		}
		left -= to - from
		return left < 0 || setsOne(content[from:to])
	})
}

// setsOne is setsSecret for a part of one line.
func setsOne(content []byte) bool {
	for _, m := range secretSet.FindAllSubmatch(content, -1) {
		sign, value := m[1], bytes.TrimSpace(m[2])
		plain := plainValue.Find(value)
		quoted := len(plain) > 0 && (plain[0] == '"' || plain[0] == '\'')
		rest := bytes.TrimLeft(value[len(plain):], " \t")
		switch {
		case len(plain) == 0 || reference.Match(plain):
		case !quoted && len(rest) > 0 && (rest[0] == '(' || rest[0] == '['): // a call, an index
		case !quoted && len(bytes.TrimSpace(sign)) == 0 && (len(rest) > 0 || !bytes.ContainsAny(plain, "0123456789!@#$%^&*")): // prose
		default:
			return true
		}
	}
	return false
}

// Shows reports whether the content of a file may be shown: it is text, and does not look like a
// secret.
func Shows(at string, content []byte) bool { return isText(content) && secret(at, content) == "" }
