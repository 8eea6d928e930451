package storage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// botocore expects a 100 for an empty body too, and without one takes the answer to the next request
// on the connection for that of this one.
func TestEmptyBodyThatExpectsA100(t *testing.T) {
	g := newHost(t).guest("blog")
	w := g.wire(t)
	w.head("PUT", "/box/empty", 0, expect100)
	if res := w.answer(); res.status != 200 {
		t.Fatalf("empty: %d %s", res.status, res.body)
	}
	w.head("PUT", "/box/full", 5, expect100)
	w.send("hello")
	if res := w.answer(); res.status != 200 {
		t.Fatalf("full: %d %s", res.status, res.body)
	}
	w.head("PUT", "/Bad_Box/b", 0, expect100)
	if res := w.answer(); res.status != 400 {
		t.Fatalf("bad bucket: %d %s", res.status, res.body)
	}
	if got := get(t, g.dummy(), "box", "full"); string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
	g.shell(t, "dummy", "dummy", `cat > t.py <<-'PY'
import boto3, os
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}))
for key, body in [("a", b""), ("b", b"hello"), ("c", b""), ("d", b""), ("e", b"hello")]:
    s3.put_object(Bucket="boto", Key=key, Body=body)
    got = s3.get_object(Bucket="boto", Key=key)["Body"].read()
    assert got == body, (key, got)
PY
/usr/bin/python3 t.py`)
}

// oddTree writes a tree of files with odd names, a sixth of them empty.
func oddTree(t *testing.T, files int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	odd := []string{"plain", "a b", "a+b", "a%20b", "é-ü", "-dash", "a&b=c", "~tilde", "it's", "(x)", "a,b;c", "日本"}
	for i := range files {
		path := filepath.Join(dir, odd[i/len(odd)%len(odd)], fmt.Sprintf("%s %d", odd[i%len(odd)], i))
		gatewaytest.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		var data []byte
		if i%6 != 0 {
			data = random(i * 37)
		}
		gatewaytest.Must(t, os.WriteFile(path, data, 0o600))
	}
	return dir
}

// TestSyncOfATree has each tool copy a tree with empty files here and back.
func TestSyncOfATree(t *testing.T) {
	t.Parallel()
	g := newHost(t).guest("blog")
	tree := oddTree(t, 150)
	for tool, script := range map[string]string{
		"aws-cli": `
			timeout 600 /usr/bin/aws --endpoint-url "$ENDPOINT" s3 mb s3://aws-cli
			timeout 600 /usr/bin/aws --endpoint-url "$ENDPOINT" s3 sync TREE s3://aws-cli/t --only-show-errors
			timeout 600 /usr/bin/aws --endpoint-url "$ENDPOINT" s3 sync s3://aws-cli/t back --only-show-errors`,
		"rclone": `
			timeout 600 rclone sync TREE s3:rclone/t -q
			timeout 600 rclone sync s3:rclone/t back -q`,
		"s3cmd": `
			timeout 600 s3cmd -q mb s3://s3cmd
			timeout 600 s3cmd -q sync TREE/ s3://s3cmd/t/
			mkdir back
			timeout 600 s3cmd -q sync s3://s3cmd/t/ back/`,
	} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			script = strings.NewReplacer("TREE", tree, "\n\t\t\t", "\n").Replace(script)
			g.shell(t, "dummy", "dummy", script+"\ndiff -r "+tree+" back\n[ \"$(find back -type f | wc -l)\" = 150 ]")
		})
	}
}

// Empty files by every way of sending one.
func TestEmptyObjects(t *testing.T) {
	g := newHost(t).guest("blog")
	for name, c := range map[string]map[string]string{"plain": nil, "MD5": {"Content-Md5": base64MD5("")}, "CRC32": {"X-Amz-Checksum-Crc32": base64CRC32("")}} {
		put(t, g.dummy(), "box", "k", []byte("old"))
		if res := g.send(t, "PUT", "/box/k", "", "", c); res.status != 200 {
			t.Errorf("%s: %d %s", name, res.status, res.body)
		}
		if got := get(t, g.dummy(), "box", "k"); !bytes.Equal(got, nil) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
