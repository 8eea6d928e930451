package cli

import (
	"bytes"
	"strings"
	"testing"
)

// Each setting that opens a bucket is named, with the command that closes it.
func TestWarnOpen(t *testing.T) {
	var out bytes.Buffer
	a := &app{err: &out}
	a.warnOpen("blog", "photos", []string{"policy", "acl", "website"})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %s", len(lines), &out)
	}
	for i, want := range []string{"by its policy. To close it, in the VM: aws s3api delete-bucket-policy --bucket photos", "ObjectOwnership=BucketOwnerEnforced", "delete-bucket-website --bucket photos"} {
		if !strings.HasPrefix(lines[i], "warning: blog/photos may still be open to everyone by its ") || !strings.Contains(lines[i], want) {
			t.Errorf("%q, want %q", lines[i], want)
		}
	}
	out.Reset()
	a.warnOpen("blog", "photos", nil)
	if out.Len() > 0 {
		t.Errorf("a warning of a closed bucket: %s", &out)
	}
}
