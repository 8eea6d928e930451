package storage

import (
	"strings"
	"testing"
)

// Names are checked where they are parsed: those of the path and the host, of a copy's source, and of a
// list of keys.
func TestNamesAreRefused(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	long := strings.Repeat("x", 1025)
	for path, code := range map[string]string{
		"/ab/k": "InvalidBucketName", "/Abc/k": "InvalidBucketName", "/a..b/k": "InvalidBucketName", "/%2e%2e/k": "InvalidBucketName",
		"/1.2.3.4/k": "InvalidBucketName", "/-ab": "InvalidBucketName", "/box/a%00b": "InvalidArgument", "/box/" + long: "KeyTooLongError",
		"/box/" + strings.Repeat("x/", 513): "KeyTooLongError", "/box/%ff": "InvalidArgument",
	} {
		if got := g.do(t, "PUT", path, nil); got.status != 400 || !strings.Contains(got.body, "<Code>"+code+"</Code>") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	for source, text := range map[string]string{
		"ab/k": "Invalid copy source bucket name", "../k": "Invalid copy source bucket name", "a..b/k": "Invalid copy source bucket name",
		"box": "Invalid copy source object key", "box/a%00": "has a NUL", "box/%ff": "is not UTF-8",
	} {
		for _, to := range []string{"/box/to", "/box/to?partNumber=1&uploadId=0193d2f4-5a6b-7c8d-9e0f-112233445566"} {
			got := g.do(t, "PUT", to, map[string]string{"X-Amz-Copy-Source": source})
			if got.status != 400 || !strings.Contains(got.body, "<Code>InvalidArgument</Code>") || !strings.Contains(got.body, text) {
				t.Errorf("copy of %s to %s: %d %s", source, to, got.status, got.body)
			}
		}
	}
	for key, text := range map[string]string{
		"": "InvalidArgument", long: "KeyTooLongError",
	} {
		body := "<Delete><Object><Key>" + key + "</Key></Object></Delete>"
		got := g.send(t, "POST", "/box?delete", "", body, map[string]string{"Content-Md5": base64MD5(body)})
		if got.status != 200 || !strings.Contains(got.body, "<Code>"+text+"</Code>") {
			t.Errorf("delete %s: %d %s", key, got.status, got.body)
		}
	}
}
