package inventory

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"lodge/gateway"
)

// Objects are the large files that a recipe can have, by path. Nil: it has none.
type Objects map[string]Scanned

// Scanned is what was found in a large file.
type Scanned struct {
	Object gateway.RecipeObject
	Why    string // it is left out; empty if it is not
}

// Large returns the files that need to be objects for a recipe to have them, as far as the limits on
// objects go.
func Large(all []gateway.FileChange) []gateway.FileChange {
	var large []gateway.FileChange
	var total int64
	for _, f := range all {
		content := f.Change == gateway.Added || f.Change == gateway.Changed && len(f.What) > 0 && f.What[0] == "content"
		if f.Type != "file" || !content || f.Bytes <= MaxFileBytes || len(large) == gateway.MaxRecipeObjects || f.Bytes > gateway.MaxRecipeObjectBytes-total {
			continue
		}
		large = append(large, f)
		total += f.Bytes
	}
	return large
}

// A large file is examined in parts of scanBytes, each with the last overlapBytes of the one before.
const (
	scanBytes    = 1 << 20
	overlapBytes = 8 << 10
)

// Scan reads a large file to its end, and looks for secrets in it. Parts that are no text are examined for
// the forms of keys and tokens alone: programs are full of the names of settings. What is compressed or
// encrypted is not found.
func Scan(at string, r io.Reader) (Scanned, error) {
	s := Scanned{Object: gateway.RecipeObject{Path: at}, Why: secret(at, nil)}
	sum := sha256.New()
	buf, have := make([]byte, overlapBytes+scanBytes), 0
	for {
		n, err := io.ReadFull(r, buf[have:])
		part := buf[:have+n]
		sum.Write(part[have:]) // a hash never fails
		s.Object.Bytes += int64(n)
		if s.Why == "" && (hasSecret(part) || bytes.IndexByte(part, 0) < 0 && setsSecret(part)) {
			s.Why = whySecret
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			s.Object.SHA256 = hex.EncodeToString(sum.Sum(nil))
			return s, nil
		}
		if err != nil {
			return s, fmt.Errorf("read large file: %w", err)
		}
		have = copy(buf, part[len(part)-overlapBytes:])
	}
}

// fetchScript has the new VM fetch a file: its path, URL, SHA-256, owner and mode. A VM of this host
// reaches the host at its gateway alone, whatever port the URL has; another machine by the name.
const fetchScript = `mkdir -p -- "$(dirname -- "$1")" && t=$(mktemp -- "$1.XXXXXX") || exit
get() { curl -fsS --connect-timeout 10 -o "$t" "$@"; }
{ get --connect-to ::169.254.169.254:443 -- "$2" || get --retry 5 -- "$2"; } && [ "$(sha256sum <"$t")" = "$3  -" ] && chown -- "$4" "$t" && chmod -- "$5" "$t" && mv -fT -- "$t" "$1" && exit
rm -f -- "$t"; printf 'not fetched: %s\n' "$1" >&2; exit 1`

// fetch has a large file fetched, or leaves it out.
func (r *recipe) fetch(f gateway.FileChange, owner string) {
	s, ok := r.large[f.Path]
	switch {
	case r.large == nil:
		r.leave(f.Path, fmt.Sprintf("it has %d bytes: lodge recipe --objects stores it as an object", f.Bytes))
	case !ok:
		r.leave(f.Path, fmt.Sprintf("it has %d bytes, and is no object: copy it by itself", f.Bytes))
	case s.Why != "":
		r.leave(f.Path, s.Why)
	default:
		r.objects = append(r.objects, s.Object)
		r.run("sh", "-c", fetchScript, "sh", f.Path, s.Object.Link(), s.Object.SHA256, owner, f.Mode)
	}
}
