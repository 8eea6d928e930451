package engine

import (
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
)

// FuzzPlace: whatever a VM calls its bucket and its object, if the names pass the checks, the path is
// below that VM's directory, below the bucket's, and no two names share one.
func FuzzPlace(f *testing.F) {
	for _, s := range [][2]string{{"box", "a/b"}, {"..", "x"}, {"box", "../../x"}, {"box", "a//b"}, {"a.b", "./x"}, {"box", ".sgwtmp/x"}, {"b/../c", "x"}, {"box", "a\x00b"}, {"box", "dir/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, bucket, key string) {
		b := &backend{dir: "/objects"}
		id := gateway.ID{1}
		if CheckBucket(bucket) != nil {
			return
		}
		path := b.bucketPath(id, bucket)
		if path != b.vmPath(id)+"/"+bucket || filepath.Dir(path) != b.vmPath(id) {
			t.Fatalf("bucket %q is at %s", bucket, path)
		}
		if CheckKey(key) != nil {
			return
		}
		object := place{path: path, key: key}.object()
		if object != path+"/"+strings.TrimSuffix(key, "/") {
			t.Fatalf("key %q is at %s", key, object)
		}
		if strings.HasPrefix(object+"/", path+"/.sgwtmp/") {
			t.Fatalf("key %q is among the temporary files", key)
		}
	})
}

func TestBucketNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"abc": true, "a-b.c": true, "0ab": true, strings.Repeat("a", 63): true, "my.bucket.name": true,
		"": false, "ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "-ab": false, "ab-": false, ".ab": false,
		"a..b": false, "a.-b": false, "1.2.3.4": false, "a/b": false, "..": false, "a b": false, "é-é": false,
	} {
		if err := CheckBucket(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
