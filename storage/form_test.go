package storage

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// post sends a browser's form, whose policy is signed as AWS describes it.
func (g guest) post(t *testing.T, url, policy string, fields map[string]string, file string) reply {
	t.Helper()
	keys := g.minted()
	now := time.Now().UTC()
	day := now.Format("20060102")
	all := map[string]string{
		"policy": base64.StdEncoding.EncodeToString([]byte(policy)), "x-amz-algorithm": "AWS4-HMAC-SHA256",
		"x-amz-credential": keys.AccessKey + "/" + day + "/us-east-1/s3/aws4_request", "x-amz-date": now.Format("20060102T150405Z"),
	}
	key := []byte("AWS4" + keys.SecretKey)
	for _, part := range []string{day, "us-east-1", "s3", "aws4_request", all["policy"]} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	all["x-amz-signature"] = hex.EncodeToString(key)
	maps.Copy(all, fields)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range all {
		gatewaytest.Must(t, form.WriteField(name, value))
	}
	w, err := form.CreateFormFile("file", "photo.jpg")
	gatewaytest.Must(t, err)
	_, err = w.Write([]byte(file))
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, form.Close())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, &body)
	gatewaytest.Must(t, err)
	r.Header.Set("Content-Type", form.FormDataContentType())
	return answer(t, r)
}

// signing are the fields of a form that only its signature has.
const signing = `{"bucket": "box"}, ["starts-with", "$key", "up/"], {"x-amz-algorithm": "AWS4-HMAC-SHA256"}, ["starts-with", "$x-amz-credential", ""], ["starts-with", "$x-amz-date", ""]`

func TestForms(t *testing.T) {
	h := newHost(t)
	g, other := h.guest("blog"), h.guest("shop")
	policy := func(more string) string {
		return `{"expiration": "` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `", "conditions": [` + signing + more + `]}`
	}
	g.post(t, g.url+"/box", policy(`, {"x-amz-meta-a": "b"}, ["eq", "$Content-Type", "image/jpeg"], {"success_action_status": "201"}`),
		map[string]string{"key": "up/${filename}", "x-amz-meta-a": "b", "Content-Type": "image/jpeg", "success_action_status": "201"}, "a picture").
		want(t, "good", 201, "<PostResponse>", "<Key>up/photo.jpg</Key>")
	if got := g.do(t, "GET", "/box/up/photo.jpg", nil); got.body != "a picture" || got.header.Get("Content-Type") != "image/jpeg" || got.header.Get("X-Amz-Meta-A") != "b" {
		t.Errorf("got %q, %v", got.body, got.header)
	}
	large := strings.Repeat("x", 200_000)
	g.post(t, h.listen(noVM())+"/box", policy(`, ["content-length-range", 1, 300000]`), map[string]string{"key": "up/large"}, large).want(t, "from the host", 204)
	if got := get(t, g.dummy(), "box", "up/large"); string(got) != large {
		t.Error("other bytes")
	}
	key := map[string]string{"key": "up/k"}
	for name, c := range map[string]struct {
		url, policy string
		fields      map[string]string
		code        string
	}{
		"expired":           {g.url + "/box", `{"expiration": "2001-01-01T00:00:00Z", "conditions": [` + signing + `]}`, key, "AccessDenied"},
		"other key":         {g.url + "/box", policy(""), map[string]string{"key": "k"}, "AccessDenied"},
		"other bucket":      {g.url + "/other", policy(""), key, "AccessDenied"},
		"field without one": {g.url + "/box", policy(""), map[string]string{"key": "up/k", "x-amz-meta-a": "b"}, "AccessDenied"},
		"missing field":     {g.url + "/box", policy(`, {"x-amz-meta-a": "b"}`), key, "AccessDenied"},
		"too large":         {g.url + "/box", policy(`, ["content-length-range", 0, 3]`), key, "EntityTooLarge"},
		"too small":         {g.url + "/box", policy(`, ["content-length-range", 10, 30]`), key, "EntityTooSmall"},
		"no JSON":           {g.url + "/box", "{", key, "InvalidPolicyDocument"},
		"no conditions":     {g.url + "/box", `{"expiration": "2100-01-01T00:00:00Z"}`, key, "InvalidPolicyDocument"},
		"bad condition":     {g.url + "/box", policy(`, ["like", "$key", "x"]`), key, "InvalidPolicyDocument"},
		"wrong signature":   {g.url + "/box", policy(""), map[string]string{"key": "up/k", "x-amz-signature": strings.Repeat("0", 64)}, "SignatureDoesNotMatch"},
		"dummy key":         {g.url + "/box", policy(""), map[string]string{"key": "up/k", "x-amz-credential": "dummy/20260101/us-east-1/s3/aws4_request"}, "AccessDenied"},
		"no policy":         {g.url + "/box", policy(""), map[string]string{"key": "up/k", "policy": ""}, "AccessDenied"},
		"another VM's tap":  {other.url + "/box", policy(""), key, "InvalidAccessKeyId"},
		"public":            {g.url + "/box", policy(`, {"acl": "public-read"}`), map[string]string{"key": "up/k", "acl": "public-read"}, "AccessControlListNotSupported"},
		"wrong MD5":         {g.url + "/box", policy(`, ["starts-with", "$content-md5", ""]`), map[string]string{"key": "up/k", "Content-MD5": base64MD5("other")}, "BadDigest"},
		"wrong checksum":    {g.url + "/box", policy(`, ["starts-with", "$x-amz-checksum-crc32", ""]`), map[string]string{"key": "up/k", "x-amz-checksum-crc32": base64CRC32("other")}, "BadDigest"},
		"many fields":       {g.url + "/box", policy(""), map[string]string{"key": "up/k", "x-ignore-a": strings.Repeat("x", 70_000)}, "MaxPostPreDataLengthExceeded"},
	} {
		if got := g.post(t, c.url, c.policy, c.fields, "12345"); got.status < 400 || !strings.Contains(got.body, code(c.code)) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	g.do(t, "HEAD", "/box/up/k", nil).want(t, "none was stored", 404)
	g.do(t, "HEAD", "/other", nil).want(t, "no bucket was made", 404)
	redirect := g.post(t, g.url+"/box", policy(`, ["starts-with", "$success_action_redirect", ""]`), map[string]string{"key": "up/r", "success_action_redirect": "http://example.com/done?a=b"}, "12345")
	if to := redirect.header.Get("Location"); redirect.status != 303 || !strings.HasPrefix(to, "http://example.com/done?a=b&bucket=box&etag=") || !strings.Contains(to, "key=up%2Fr") {
		t.Errorf("redirect: %d %s", redirect.status, to)
	}
}

// A form that ends before its file does stores nothing.
func TestCutForm(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "up/k", []byte("old"))
	for _, body := range []string{"", "--x\r\n", "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x--\r\n", "no form"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/box", strings.NewReader(body))
		gatewaytest.Must(t, err)
		r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		if got := answer(t, r); got.status != 400 {
			t.Errorf("%q: %d %s", body, got.status, got.body)
		}
	}
	if got := get(t, g.dummy(), "box", "up/k"); string(got) != "old" {
		t.Errorf("got %q", got)
	}
}
