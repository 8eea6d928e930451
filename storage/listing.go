package storage

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"lodge/storage/s3"
	"lodge/storage/store"
)

//go:embed listing.html
var listingText string

// listing is the page on which a browser shows a folder of a bucket: of all keys below a prefix the
// first parts. It has no script. Its form may post to itself alone, so that no key makes another
// one.
type listing struct {
	Title  string
	Parent string // the folder above; "" at the top
	Rows   []listed
	Next   string // the next page
	Upload string // where the form posts to; "" for who may not write
	Nonce  string
}

// listed is a folder or an object.
type listed struct {
	Name, URL, Size, Changed string // without a URL: no browser can ask for it
}

// wantsListing reports whether a browser asks for the page of a bucket, rather than a program for
// S3's own list.
func wantsListing(r *http.Request, t s3.Target) bool {
	if t.Key != "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	for name := range r.URL.Query() {
		if name != "prefix" && name != "marker" {
			return false
		}
	}
	return slices.ContainsFunc(r.Header.Values("Accept"), func(v string) bool { return strings.Contains(v, "text/html") })
}

// folderURL is the page of a folder. The prefix is in the query: any bytes are possible there, and
// browsers change a path that has "..".
func folderURL(prefix string) string {
	if prefix == "" {
		return "/"
	}
	return "/?prefix=" + url.QueryEscape(prefix)
}

// objectURL is the path of an object, as a browser asks for it: "//" at its start would be another
// host, and "." and ".." are removed unless the slashes beside them are escaped. Nothing escapes a
// key that is one of the two.
func objectURL(key string) string {
	switch parts := strings.Split(key, "/"); {
	case key == "." || key == "..":
		return ""
	case parts[0] == "", slices.Contains(parts, "."), slices.Contains(parts, ".."):
		return "/" + url.PathEscape(key)
	default:
		for i, part := range parts {
			parts[i] = url.PathEscape(part)
		}
		return "/" + strings.Join(parts, "/")
	}
}

// uploadURL is where a form posts a file for a folder.
func uploadURL(prefix string) string { return "/?upload=&prefix=" + url.QueryEscape(prefix) }

// newListing makes the page of a folder.
func newListing(bucket, prefix string, page store.Page) listing {
	l := listing{Title: bucket + "/" + prefix, Nonce: rand.Text()}
	if prefix != "" {
		above := strings.TrimSuffix(prefix, "/")
		l.Parent = folderURL(above[:strings.LastIndexByte(above, '/')+1])
	}
	for _, folder := range page.Prefixes {
		l.Rows = append(l.Rows, listed{Name: strings.TrimPrefix(folder, prefix), URL: folderURL(folder)})
	}
	for _, o := range page.Objects {
		name := strings.TrimPrefix(o.Key.Name, prefix)
		if name == "" { // the folder's own key
			name = "."
		}
		l.Rows = append(l.Rows, listed{
			Name: name, URL: objectURL(o.Key.Name), Size: humanize.IBytes(uint64(max(0, o.Size))), //nolint:gosec // not negative
			Changed: o.Modified.UTC().Format(time.DateTime),
		})
	}
	if page.More {
		l.Next = "/?prefix=" + url.QueryEscape(prefix) + "&marker=" + url.QueryEscape(page.Next)
	}
	return l
}

var listingPage = template.Must(template.New("listing").Parse(listingText)) //nolint:gochecknoglobals // a constant

// write answers with the page, while its client accepts it.
func (l listing) write(w *patientWriter) error {
	var text bytes.Buffer
	if err := listingPage.Execute(&text, l); err != nil {
		return fmt.Errorf("render a listing: %w", err)
	}
	w.isolated = false
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+l.Nonce+"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // with no-referrer, a form's POST has the origin null (Fetch, section 3.2)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, _ = text.WriteTo(w) // the client may have left
	return nil
}
