package cli

import (
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
)

// FuzzParseShare: what is read names a visibility, and whom exactly if the visibility needs that.
func FuzzParseShare(f *testing.F) {
	for _, line := range []string{"public", "8080 private", "people ada@example.com,@example.org bob@x", "team devs", "0 public", "people ,", "80 people", "public x", "", "s3:photos public", "s3: public", "s3:photos 80 public"} {
		f.Add(uint16(0), line)
	}
	f.Add(uint16(8080), "people a@b")
	f.Fuzz(func(t *testing.T, port uint16, line string) {
		share, err := parseShare(port, strings.Fields(line))
		if err != nil {
			if gateway.KindOf(err) != gateway.KindInvalid {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
		named := share.Visibility == gateway.People || share.Visibility == gateway.Team
		if !isVisibility(string(share.Visibility)) || named != (len(share.With) > 0) || slices.Contains(share.With, "") || port != 0 && share.Port != port || share.Bucket != "" && share.Port != 0 {
			t.Errorf("%d %q: %+v", port, line, share)
		}
	})
}
