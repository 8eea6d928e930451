package storage

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
)

// shell runs a script with the environment that the guest image has, against the guest's own listener.
// access and secret are the credentials that the tools find; a missing tool fails the test: the suite installs
// them.
func (g guest) shell(t *testing.T, access, secret, script string) string {
	t.Helper()
	home := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	write(".s3cfg", fmt.Sprintf("[default]\naccess_key=%s\nsecret_key=%s\nhost_base=%s\nhost_bucket=%s\nuse_https=False\nsignature_v2=False\n",
		access, secret, listener.Host, listener.Host))
	write(".aws/config", "[default]\nregion = us-east-1\ns3 =\n  addressing_style = path\n  signature_version = s3v4\n")
	cmd := exec.CommandContext(t.Context(), "/bin/bash", "-euo", "pipefail", "-c", `aws() { /usr/bin/aws --endpoint-url "$ENDPOINT" "$@"; }`+"\n"+script)
	cmd.Dir = home
	cmd.Env = []string{
		"HOME=" + home, "PATH=/usr/bin:/bin", "AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
		"ENDPOINT=" + g.url, "AWS_ENDPOINT_URL_S3=" + g.url,
		"RCLONE_CONFIG_S3_TYPE=s3", "RCLONE_CONFIG_S3_PROVIDER=Other", "RCLONE_CONFIG_S3_ENDPOINT=" + g.url,
		"RCLONE_CONFIG_S3_ENV_AUTH=true", "RCLONE_CONFIG_S3_FORCE_PATH_STYLE=true", "RCLONE_CONFIG_S3_REGION=us-east-1",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%s\n%v", script, out, err)
	}
	return string(out)
}

func TestTools(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.guest("blog")
	minted := g.minted()
	scripts := map[string]string{
		"aws-cli": `
			head -c 100000 /dev/urandom > f
			aws s3 cp f s3://BUCKET/dir/f --only-show-errors
			aws s3 ls s3://BUCKET/dir/ | grep ' 100000 f' > /dev/null
			aws s3 ls | grep BUCKET > /dev/null
			aws s3 cp s3://BUCKET/dir/f g --only-show-errors && cmp f g
			head -c 67108864 /dev/urandom > big
			aws s3 cp big s3://BUCKET/big --only-show-errors
			aws s3 cp s3://BUCKET/big big2 --only-show-errors && cmp big big2
			aws s3 cp s3://BUCKET/big s3://BUCKET/big-copy --only-show-errors
			aws s3 cp s3://BUCKET/big-copy big3 --only-show-errors && cmp big big3
			aws s3 mv s3://BUCKET/dir/f s3://BUCKET/dir/g --only-show-errors
			mkdir tree && cp f tree/a && cp f 'tree/b c+d%20é'
			aws s3 sync tree s3://BUCKET/tree --only-show-errors
			aws s3 sync s3://BUCKET/tree tree2 --only-show-errors && diff -r tree tree2
			aws s3api put-object-tagging --bucket BUCKET --key big --tagging 'TagSet=[{Key=a,Value=b}]'
			aws s3api get-object-tagging --bucket BUCKET --key big | grep '"b"' > /dev/null
			curl -sf "$(aws s3 presign s3://BUCKET/dir/g)" > p && cmp p f || [ KEYS = dummy ]
			aws s3api put-object --bucket BUCKET --key sum --body f --checksum-algorithm SHA256 | grep ChecksumSHA256 > /dev/null
			aws s3api head-object --bucket BUCKET --key sum --checksum-mode ENABLED | grep ChecksumSHA256 > /dev/null
			aws s3api get-object --bucket BUCKET --key sum --range bytes=10-19 r > /dev/null && [ "$(stat -c %s r)" = 10 ]
			aws s3 mb s3://made-KEYS > /dev/null && aws s3 rb s3://made-KEYS > /dev/null
			aws s3 rm s3://BUCKET --recursive --only-show-errors
			aws s3 rb s3://BUCKET`,
		"rclone": `
			head -c 100000 /dev/urandom > f
			rclone copy f s3:BUCKET/dir -q
			rclone ls s3:BUCKET | grep dir/f > /dev/null
			rclone cat s3:BUCKET/dir/f | cmp - f
			head -c 67108864 /dev/urandom > big
			rclone copyto big s3:BUCKET/big --s3-upload-cutoff 16M --s3-chunk-size 8M -q
			rclone cat s3:BUCKET/big | cmp - big
			rclone copyto s3:BUCKET/big s3:BUCKET/big2 -q
			rclone check . s3:BUCKET --include big -q
			rclone lsd s3: | grep BUCKET > /dev/null
			rclone purge s3:BUCKET -q`,
		"s3cmd": `
			head -c 100000 /dev/urandom > f
			s3cmd -q put f s3://BUCKET/dir/f
			s3cmd ls s3://BUCKET/dir/ | grep dir/f > /dev/null
			s3cmd -q get s3://BUCKET/dir/f g && cmp f g
			head -c 33554432 /dev/urandom > big
			s3cmd -q put --multipart-chunk-size-mb=8 big s3://BUCKET/big
			s3cmd -q get s3://BUCKET/big big2 && cmp big big2
			s3cmd -q cp s3://BUCKET/big s3://BUCKET/big3
			s3cmd info s3://BUCKET/dir/f | grep 'File size: 100000' > /dev/null
			s3cmd -q del s3://BUCKET/dir/f
			s3cmd -q rb --recursive s3://BUCKET`,
		"boto3": `
			cat > t.py <<-'PY'
			import boto3, io, os, urllib.request
			from botocore.config import Config
			s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], config=Config(signature_version="s3v4"))
			data = os.urandom(20 << 20)
			open("f", "wb").write(data)
			s3.upload_file("f", "BUCKET", "dir/f")
			out = io.BytesIO(); s3.download_fileobj("BUCKET", "dir/f", out); assert out.getvalue() == data
			s3.put_object(Bucket="BUCKET", Key="m", Body=b"x", Metadata={"a": "b"}, Tagging="t=u", ContentType="text/x")
			o = s3.get_object(Bucket="BUCKET", Key="m")
			assert o["Metadata"] == {"a": "b"} and o["ContentType"] == "text/x" and o["TagCount"] == 1, o
			assert s3.get_object_tagging(Bucket="BUCKET", Key="m")["TagSet"] == [{"Key": "t", "Value": "u"}]
			s3.put_object(Bucket="BUCKET", Key="c", Body=b"x" * 1000, ChecksumAlgorithm="CRC32")
			names = [o["Key"] for o in s3.list_objects_v2(Bucket="BUCKET")["Contents"]]
			assert names == ["c", "dir/f", "m"], names
			s3.delete_objects(Bucket="BUCKET", Delete={"Objects": [{"Key": k} for k in names]})
			assert s3.list_objects_v2(Bucket="BUCKET")["KeyCount"] == 0
			try: s3.head_bucket(Bucket="no-such-bucket"); assert False
			except s3.exceptions.ClientError as e: assert e.response["Error"]["Code"] == "404"
			assert s3.list_objects_v2(Bucket="no-such-bucket")["KeyCount"] == 0
			try: s3.get_object(Bucket="no-such-bucket", Key="k"); assert False
			except s3.exceptions.NoSuchBucket: pass
			s3.delete_bucket(Bucket="BUCKET")
			eu = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], region_name="eu-central-1")
			eu.create_bucket(Bucket="made-eu-KEYS", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
			PY
			/usr/bin/python3 t.py`,
	}
	for _, tool := range slices.Sorted(mapsKeys(scripts)) {
		for keys, pair := range map[string][2]string{"dummy": {"dummy", "dummy"}, "minted": {minted.AccessKey, minted.SecretKey}} {
			t.Run(tool+"/"+keys, func(t *testing.T) {
				t.Parallel()
				script := strings.NewReplacer("BUCKET", tool+"-"+keys, "KEYS", keys, "\n\t\t\t", "\n").Replace(scripts[tool])
				g.shell(t, pair[0], pair[1], script)
			})
		}
	}
}

func mapsKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestLateral has one VM try for the other's objects in every way that there is.
func TestLateral(t *testing.T) {
	h := newHost(t)
	a, b := h.guest("alice"), h.guest("bob")
	secret := []byte("alice's")
	put(t, a.dummy(), "shared-name", "k", secret)
	put(t, b.dummy(), "shared-name", "k", []byte("bob's"))
	put(t, a.dummy(), "only-alice", "k", secret)

	t.Run("same bucket name, own objects", func(t *testing.T) {
		if got := get(t, b.dummy(), "shared-name", "k"); string(got) != "bob's" {
			t.Fatalf("got %q", got)
		}
		if got := get(t, a.keyed(), "shared-name", "k"); !bytes.Equal(got, secret) {
			t.Fatalf("got %q", got)
		}
	})
	t.Run("list", func(t *testing.T) {
		buckets, err := b.dummy().ListBuckets(t.Context())
		if err != nil || len(buckets) != 1 || buckets[0].Name != "shared-name" {
			t.Fatalf("got %v, %v", buckets, err)
		}
	})
	t.Run("alice's credentials from bob", func(t *testing.T) {
		c := a.minted()
		_, err := client(t, b.url, c.AccessKey, c.SecretKey).ListBuckets(t.Context())
		wantCode(t, err, "InvalidAccessKeyId", 403)
	})
	t.Run("copy source", func(t *testing.T) {
		for _, source := range []string{
			"only-alice/k", "/only-alice/k", "../" + a.ID.String() + "/only-alice/k", a.ID.String() + "/only-alice/k",
			"shared-name/../../" + a.ID.String() + "/only-alice/k", "shared-name/%2e%2e/%2e%2e/" + a.ID.String() + "/only-alice/k",
			"shared-name%2f..%2f..%2f" + a.ID.String() + "%2fonly-alice%2fk", "/etc/passwd", "..%2f..%2f..%2fetc/passwd",
		} {
			res := b.do(t, "PUT", "/shared-name/stolen", map[string]string{"X-Amz-Copy-Source": source})
			if res.status < 400 || strings.Contains(res.body, "alice's") {
				t.Errorf("%s: %d %s", source, res.status, res.body)
			}
			part := b.do(t, "PUT", "/shared-name/stolen?partNumber=1&uploadId="+gateway.NewID().String(), map[string]string{"X-Amz-Copy-Source": source})
			if part.status < 400 {
				t.Errorf("part copy %s: %d %s", source, part.status, part.body)
			}
		}
	})
	t.Run("paths", func(t *testing.T) {
		other := a.ID.String()
		for _, path := range []string{
			"/only-alice/k", "/shared-name/../only-alice/k", "/../" + other + "/only-alice/k", "/%2e%2e/" + other + "/only-alice/k",
			"/shared-name/%2e%2e/%2e%2e/" + other + "/only-alice/k", "/shared-name%2f..%2f..%2f" + other + "%2fonly-alice/k",
			"/shared-name/%252e%252e/%252e%252e/" + other + "/only-alice/k", "/" + other + "/only-alice/k", "/" + other + "%2fonly-alice/k",
			"/shared-name/..%5c..%5c" + other + "/only-alice/k", "//only-alice/k", "/./only-alice/k", "/shared-name/.sgwtmp/x",
			"/shared-name/k/../../../" + other + "/only-alice/k", "/shared-name/..", "/shared-name/%00/../k", "/..", "/.",
		} {
			for _, method := range []string{"GET", "PUT", "DELETE", "HEAD"} {
				res := b.do(t, method, path, nil)
				if strings.Contains(res.body, "alice's") {
					t.Errorf("%s %s: %d %s", method, path, res.status, res.body)
				}
			}
			host := b.doHost(t, "GET", path, "only-alice."+gateway.S3Host)
			if strings.Contains(host.body, "alice's") {
				t.Errorf("virtual host %s: %d %s", path, host.status, host.body)
			}
		}
		if got := get(t, a.dummy(), "only-alice", "k"); !bytes.Equal(got, secret) {
			t.Fatalf("alice's object is now %q", got)
		}
	})
	t.Run("uploads", func(t *testing.T) {
		core := minioCore(a)
		id, err := core.NewMultipartUpload(t.Context(), "shared-name", "up", putOptions())
		if err != nil {
			t.Fatal(err)
		}
		for _, upload := range []string{id, "../" + id, "../../../../" + a.ID.String() + "/shared-name/.sgwtmp/multipart", "..", ".", "%2e%2e", strings.ToUpper(id)} {
			q := "uploadId=" + url.QueryEscape(upload)
			for _, call := range [][2]string{{"GET", q}, {"PUT", "partNumber=1&" + q}, {"DELETE", q}} {
				res := b.do(t, call[0], "/shared-name/up?"+call[1], nil)
				if res.status != 404 || !strings.Contains(res.body, "NoSuchUpload") {
					t.Errorf("%s %s: %d %s", call[0], call[1], res.status, res.body)
				}
			}
			done := b.doBody(t, "POST", "/shared-name/up?"+q, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>d41d8cd98f00b204e9800998ecf8427e</ETag></Part></CompleteMultipartUpload>")
			if done.status != 404 {
				t.Errorf("complete %s: %d %s", upload, done.status, done.body)
			}
		}
		if _, err := core.PutObjectPart(t.Context(), "shared-name", "up", id, 1, bytes.NewReader(secret), int64(len(secret)), partOptions()); err != nil {
			t.Fatalf("alice's upload is broken: %v", err)
		}
	})
	t.Run("form", func(t *testing.T) {
		res := b.doType(t, "POST", "/only-alice", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x--\r\n")
		if res.status != 405 { // a form is signed in its fields
			t.Fatalf("got %d %s", res.status, res.body)
		}
	})
	t.Run("no path of the host's in any answer", func(t *testing.T) {
		for _, path := range []string{"/no-such-bucket/k", "/no-such-bucket", "/shared-name/none", "/shared-name?tagging", "/shared-name?uploads", "/shared-name", "/shared-name?list-type=2&fetch-owner=true", "/shared-name?versions"} {
			if res := b.do(t, "GET", path, nil); strings.Contains(res.body, h.dir) {
				t.Errorf("%s: %s", path, res.body)
			}
		}
	})
}
