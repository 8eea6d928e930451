package storage

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

const plainText = "nothing of this may be readable on the disk"

// customerKey are the headers of a request with a customer's key.
func customerKey(prefix, key string) map[string]string {
	sum := md5.Sum([]byte(key))
	return map[string]string{
		prefix + "Algorithm": "AES256", prefix + "Key": base64.StdEncoding.EncodeToString([]byte(key)),
		prefix + "Key-Md5": base64.StdEncoding.EncodeToString(sum[:]),
	}
}

var ( // the two keys, as headers
	keyOne = customerKey("X-Amz-Server-Side-Encryption-Customer-", strings.Repeat("1", 32))
	keyTwo = customerKey("X-Amz-Server-Side-Encryption-Customer-", strings.Repeat("2", 32))
	byHost = map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}
)

func with(all ...map[string]string) map[string]string {
	sum := map[string]string{}
	for _, m := range all {
		maps.Copy(sum, m)
	}
	return sum
}

// filesWith counts the files below dir that have a text in them.
func filesWith(t *testing.T, dir, text string) (n int) {
	t.Helper()
	gatewaytest.Must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			n++
		}
		return err
	}))
	return n
}

// What is sealed cannot be read on the disk, and has the size, the ETag and the ranges of the plain body.
func TestSealedObjects(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	for _, size := range []int{0, 1, 40, 65_535, 65_536, 65_537, 300_000} {
		body := strings.Repeat(plainText, size/len(plainText)+1)[:size]
		for name, key := range map[string]map[string]string{"host": byHost, "customer": keyOne} {
			path := "/box/" + name + strconv.Itoa(size)
			got := g.send(t, "PUT", path, "", body, key)
			got.want(t, "put "+path, 200)
			read, etag := map[string]string{}, md5.Sum([]byte(body))
			if name == "customer" {
				read = keyOne
				if got.header.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != "AES256" || got.header.Get("Etag") == `"`+hex.EncodeToString(etag[:])+`"` {
					t.Errorf("%s: %v", path, got.header)
				}
			} else if got.header.Get("X-Amz-Server-Side-Encryption") != "AES256" || got.header.Get("Etag") != `"`+hex.EncodeToString(etag[:])+`"` {
				t.Errorf("%s: %v", path, got.header)
			}
			if got := g.do(t, "GET", path, read); got.status != 200 || got.body != body || got.header.Get("Content-Length") != strconv.Itoa(size) {
				t.Errorf("%s: %d, %d bytes", path, got.status, len(got.body))
			}
			if got := g.do(t, "HEAD", path, read); got.status != 200 || got.header.Get("Content-Length") != strconv.Itoa(size) {
				t.Errorf("%s: %d %v", path, got.status, got.header)
			}
			for _, r := range [][2]int{{0, 0}, {5, 9}, {65_535, 65_536}, {65_536, 65_536}, {131_072, 200_001}, {size - 1, size}} {
				if r[0] < 0 || r[0] >= size {
					continue
				}
				want := body[r[0]:min(r[1]+1, size)]
				got := g.do(t, "GET", path, with(read, map[string]string{"Range": "bytes=" + strconv.Itoa(r[0]) + "-" + strconv.Itoa(r[1])}))
				if got.status != 206 || got.body != want {
					t.Errorf("%s %v: %d, %d bytes", path, r, got.status, len(got.body))
				}
			}
			g.do(t, "GET", "/box?prefix="+name+strconv.Itoa(size), nil).want(t, "list", 200, "<Size>"+strconv.Itoa(size)+"</Size>")
		}
	}
	usage, err := h.objects.Usage(g.ID)
	if gatewaytest.Must(t, err); usage.Bytes != 2*(0+1+40+65_535+65_536+65_537+300_000) {
		t.Errorf("usage is %d bytes", usage.Bytes)
	}
	if n := filesWith(t, h.dir, plainText); n != 0 {
		t.Errorf("%d files have the plain text", n)
	}
	info, err := os.Stat(filepath.Join(h.dir, "seal.key"))
	if gatewaytest.Must(t, err); info.Mode() != 0o600 || info.Size() != 32 {
		t.Errorf("the key: %v, %d bytes", info.Mode(), info.Size())
	}
	if n := filesWith(t, h.dir, strings.Repeat("1", 32)); n != 0 {
		t.Errorf("%d files have the customer's key", n)
	}
}

// A customer's key must be the right one, and whole.
func TestCustomerKeys(t *testing.T) {
	g := newHost(t).guest("blog")
	const prefix = "X-Amz-Server-Side-Encryption-Customer-"
	g.send(t, "PUT", "/box/k", "", plainText, keyOne).want(t, "put", 200)
	g.send(t, "PUT", "/box/open", "", plainText, nil).want(t, "put", 200)
	without := func(name string) map[string]string {
		m := with(keyOne)
		delete(m, prefix+name)
		return m
	}
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		status       int
		code         string
	}{
		"no key":            {"GET", "/box/k", nil, 400, "InvalidRequest"},
		"another key":       {"GET", "/box/k", keyTwo, 403, "AccessDenied"},
		"attributes":        {"GET", "/box/k?attributes", map[string]string{"X-Amz-Object-Attributes": "ETag"}, 400, "InvalidRequest"},
		"not applicable":    {"GET", "/box/open", keyOne, 400, "InvalidRequest"},
		"no algorithm":      {"PUT", "/box/n", without("Algorithm"), 400, "InvalidArgument"},
		"no key itself":     {"PUT", "/box/n", without("Key"), 400, "InvalidArgument"},
		"no MD5":            {"PUT", "/box/n", without("Key-Md5"), 400, "InvalidArgument"},
		"wrong MD5":         {"PUT", "/box/n", with(keyOne, map[string]string{prefix + "Key-Md5": keyTwo[prefix+"Key-Md5"]}), 400, "InvalidArgument"},
		"short key":         {"PUT", "/box/n", customerKey(prefix, "short"), 400, "InvalidArgument"},
		"other algorithm":   {"PUT", "/box/n", with(keyOne, map[string]string{prefix + "Algorithm": "AES128"}), 400, "InvalidEncryptionAlgorithmError"},
		"both":              {"PUT", "/box/n", with(keyOne, byHost), 400, "InvalidArgument"},
		"unknown":           {"PUT", "/box/n", map[string]string{"X-Amz-Server-Side-Encryption": "AES512"}, 400, "InvalidArgument"},
		"KMS":               {"PUT", "/box/n", map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}, 501, "NotImplemented"},
		"KMS key":           {"PUT", "/box/n", map[string]string{"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "k"}, 501, "NotImplemented"},
		"KMS context":       {"PUT", "/box/n", map[string]string{"X-Amz-Server-Side-Encryption-Context": "k"}, 501, "NotImplemented"},
		"at a GET":          {"GET", "/box/open", byHost, 400, "InvalidArgument"},
		"at a bucket":       {"PUT", "/new", byHost, 400, "InvalidArgument"},
		"at a DELETE":       {"DELETE", "/box/open", keyOne, 400, "InvalidArgument"},
		"at tags":           {"GET", "/box/open?tagging", keyOne, 400, "InvalidArgument"},
		"copy's at a PUT":   {"PUT", "/box/n", sourceOf(keyOne), 400, "InvalidArgument"},
		"copy's at a GET":   {"GET", "/box/open", sourceOf(keyOne), 400, "InvalidArgument"},
		"unknown header":    {"PUT", "/box/n", map[string]string{prefix + "Colour": "x"}, 400, "InvalidArgument"},
		"copy without":      {"PUT", "/box/n", map[string]string{"X-Amz-Copy-Source": "/box/k"}, 400, "InvalidRequest"},
		"copy, another key": {"PUT", "/box/n", with(customerKey("X-Amz-Copy-Source-"+prefix[6:], strings.Repeat("2", 32)), map[string]string{"X-Amz-Copy-Source": "/box/k"}), 403, "AccessDenied"},
	} {
		if got := g.send(t, c.method, c.path, "", "", c.header); got.status != c.status || !strings.Contains(got.body, code(c.code)) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	g.do(t, "HEAD", "/box/k", nil).want(t, "HEAD without", 400)
	g.do(t, "HEAD", "/box/n", nil).want(t, "nothing was stored", 404)
	g.send(t, "PUT", "/box/n", "", plainText, with(keyOne, map[string]string{"Content-Md5": base64MD5("other")})).want(t, "MD5", 400, code("BadDigest"))
	g.send(t, "PUT", "/box/n", "", plainText, with(keyOne, map[string]string{"X-Amz-Checksum-Crc32": base64CRC32("other")})).want(t, "checksum", 400, code("BadDigest"))
	g.do(t, "HEAD", "/box/n", keyOne).want(t, "nothing was stored", 404)
	g.send(t, "PUT", "/box/n", "", plainText, with(keyOne, map[string]string{"Content-Md5": base64MD5(plainText), "X-Amz-Checksum-Crc32": base64CRC32(plainText)})).want(t, "right ones", 200)
}

// Every copy is sealed by its headers, and without any by the host if its source is.
func TestSealedCopies(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	body := strings.Repeat(plainText, 3000)
	kinds := map[string]map[string]string{"open": nil, "host": byHost, "customer": keyOne}
	source := customerKey("X-Amz-Copy-Source-Server-Side-Encryption-Customer-", strings.Repeat("1", 32))
	for from, key := range kinds {
		g.send(t, "PUT", "/box/"+from, "", body, key).want(t, from, 200)
		for to, ask := range kinds {
			header := with(ask, map[string]string{"X-Amz-Copy-Source": "/box/" + from})
			read := map[string]string(nil)
			if from == "customer" {
				header = with(header, source)
			}
			if to == "customer" {
				read = keyOne
			}
			path := "/box/" + from + "-" + to
			g.send(t, "PUT", path, "", "", header).want(t, path, 200)
			got := g.do(t, "GET", path, read)
			if got.status != 200 || got.body != body {
				t.Errorf("%s: %d, %d bytes", path, got.status, len(got.body))
			}
			if sealed := got.header.Get("X-Amz-Server-Side-Encryption") + got.header.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm"); (sealed == "AES256") != (to != "open" || from == "host") {
				t.Errorf("%s: %v", path, got.header)
			}
			g.do(t, "DELETE", path, nil).want(t, "delete", 204)
		}
	}
	g.send(t, "PUT", "/box/open", "", "", with(byHost, map[string]string{"X-Amz-Copy-Source": "/box/open"})).want(t, "to itself", 200)
	if got := g.do(t, "GET", "/box/open", nil); got.body != body || got.header.Get("X-Amz-Server-Side-Encryption") != "AES256" {
		t.Errorf("to itself: %d bytes, %v", len(got.body), got.header)
	}
}

// The parts of an upload are sealed one by one; a range may cross them.
func TestSealedUploads(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	body := strings.Repeat(plainText, (5<<20+100_000)/len(plainText)+1)
	first, second := body[:5<<20+7], body[5<<20+7:]
	for name, key := range map[string]map[string]string{"host": byHost, "customer": keyOne} {
		parts := map[string]string(nil)
		if name == "customer" {
			parts = keyOne
		}
		path := "/box/" + name
		begun := g.send(t, "POST", path+"?uploads", "", "", key)
		begun.want(t, "begin", 200)
		id := between(begun.body, "<UploadId>", "</UploadId>")
		if name == "customer" {
			g.send(t, "PUT", path+"?partNumber=1&uploadId="+id, "", "x", nil).want(t, "a part without the key", 400, code("InvalidRequest"))
			g.send(t, "PUT", path+"?partNumber=1&uploadId="+id, "", "x", keyTwo).want(t, "a part with another key", 403, code("AccessDenied"))
		}
		var list strings.Builder
		list.WriteString("<CompleteMultipartUpload>")
		for i, part := range []string{first, second} {
			number := strconv.Itoa(3*i + 1)
			put := g.send(t, "PUT", path+"?partNumber="+number+"&uploadId="+id, "", part, parts)
			put.want(t, "part", 200)
			list.WriteString("<Part><PartNumber>" + number + "</PartNumber><ETag>" + put.header.Get("Etag") + "</ETag></Part>")
		}
		list.WriteString("</CompleteMultipartUpload>")
		g.do(t, "GET", path+"?uploadId="+id, nil).want(t, "parts", 200, "<Size>"+strconv.Itoa(len(first))+"</Size>")
		wrong := g.send(t, "POST", path+"?uploadId="+id, "", list.String(), keyTwo)
		wrong.want(t, "complete with another key", map[string]int{"host": 400, "customer": 403}[name])
		g.send(t, "POST", path+"?uploadId="+id, "", list.String(), map[string]string{"X-Amz-Mp-Object-Size": strconv.Itoa(len(body))}).want(t, "complete", 200)
		if got := g.do(t, "GET", path, parts); got.status != 200 || got.body != body {
			t.Errorf("%s: %d, %d bytes", path, got.status, len(got.body))
		}
		for _, from := range []int{0, 65_535, len(first) - 70_000, len(first) - 1, len(first), len(body) - 3} {
			end := min(from+140_000, len(body)-1)
			got := g.do(t, "GET", path, with(parts, map[string]string{"Range": "bytes=" + strconv.Itoa(from) + "-" + strconv.Itoa(end)}))
			if got.status != 206 || got.body != body[from:end+1] {
				t.Errorf("%s from %d: %d, %d bytes", path, from, got.status, len(got.body))
			}
		}
		if got := g.do(t, "GET", path+"?partNumber=4", parts); got.status != 206 || got.body != second {
			t.Errorf("%s, part 4: %d, %d bytes", path, got.status, len(got.body))
		}
		g.do(t, "PUT", path+"-copy", with(map[string]string{"X-Amz-Copy-Source": path}, key, sourceOf(parts))).want(t, "copy", 200)
		if got := g.do(t, "GET", path+"-copy", parts); got.body != body {
			t.Errorf("%s-copy: %d bytes", path, len(got.body))
		}
	}
	if n := filesWith(t, h.dir, plainText); n != 0 {
		t.Errorf("%d files have the plain text", n)
	}
}

// sourceOf are the headers of a copy whose source has the key of these.
func sourceOf(key map[string]string) map[string]string {
	m := map[string]string{}
	for name, value := range key {
		m["X-Amz-Copy-Source-"+name[6:]] = value
	}
	return m
}

func between(text, begin, end string) string {
	_, rest, _ := strings.Cut(text, begin)
	inner, _, _ := strings.Cut(rest, end)
	return inner
}

// What a bucket has as its default is done with what has no header of its own.
func TestBucketEncryption(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.send(t, "PUT", "/box/before", "", "x", nil).want(t, "before", 200)
	conf := func(kind string) string {
		return "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>" + kind +
			"</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
	}
	g.doBody(t, "PUT", "/box?encryption", conf("aws:kms")).want(t, "KMS", 501, code("NotImplemented"))
	g.doBody(t, "PUT", "/box?encryption", conf("ROT13")).want(t, "unknown", 400, code("MalformedXML"))
	g.doBody(t, "PUT", "/box?encryption", "<ServerSideEncryptionConfiguration/>").want(t, "no rule", 400, code("MalformedXML"))
	g.doBody(t, "PUT", "/box?encryption", conf("AES256")).want(t, "set", 200)
	g.do(t, "GET", "/box?encryption", nil).want(t, "get", 200, "AES256")
	g.send(t, "PUT", "/box/k", "", plainText, nil).want(t, "put", 200)
	g.send(t, "PUT", "/box/c", "", plainText, keyOne).want(t, "put", 200)
	if got := g.do(t, "GET", "/box/k", nil); got.body != plainText || got.header.Get("X-Amz-Server-Side-Encryption") != "AES256" {
		t.Errorf("default: %q %v", got.body, got.header)
	}
	if got := g.do(t, "GET", "/box/before", nil); got.header.Get("X-Amz-Server-Side-Encryption") != "" {
		t.Errorf("an older one: %v", got.header)
	}
	g.do(t, "GET", "/box/c", nil).want(t, "the customer's", 400)
	g.do(t, "DELETE", "/box?encryption", nil).want(t, "delete", 204)
	g.send(t, "PUT", "/box/after", "", plainText, nil).want(t, "put", 200)
	if got := g.do(t, "GET", "/box/after", nil); got.header.Get("X-Amz-Server-Side-Encryption") != "" {
		t.Errorf("afterwards: %v", got.header)
	}
}

// Another key of the host opens nothing, and nothing starts without the one that objects are sealed with.
func TestSealKey(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	file := filepath.Join(h.dir, "seal.key")
	key, err := os.ReadFile(file)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.Remove(file))
	if _, err := sealKey(file, h.objects); err != nil {
		t.Errorf("a new key, while nothing is sealed: %v", err)
	}
	gatewaytest.Must(t, os.WriteFile(file, key, 0o600))
	g.send(t, "PUT", "/box/k", "", plainText, byHost).want(t, "put", 200)
	if again, err := sealKey(file, h.objects); err != nil || !bytes.Equal(again[:], key) {
		t.Errorf("the same key: %v", err)
	}
	for name, text := range map[string][]byte{"short": []byte("short"), "another": bytes.Repeat([]byte{1}, 32), "none": nil} {
		gatewaytest.Must(t, os.RemoveAll(file))
		if text != nil {
			gatewaytest.Must(t, os.WriteFile(file, text, 0o600))
		}
		if _, err := sealKey(file, h.objects); err == nil || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s key: %v", name, err)
		}
	}
	h.protocol.SealKey[0]++
	if got := g.do(t, "GET", "/box/k", nil); got.status != 500 || strings.Contains(got.body, "key") {
		t.Errorf("with another key of the host: %d %s", got.status, got.body)
	}
}
