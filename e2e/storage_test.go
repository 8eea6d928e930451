package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/e2e/harness"
)

// decode decodes the output of base64 -w0 in a guest.
func decode(t *testing.T, text string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		t.Fatalf("not base64: %v in %q", err, text)
	}
	return string(raw)
}

// tools store a file and read it back, without any configuration. Each prints the file's checksum
// at the end. One sends a large file, in several parts: each megabyte takes seconds in a guest under
// TCG.
func tools() []struct{ name, script string } {
	return []struct{ name, script string }{
		{"aws", `aws s3 cp ~/file s3://by-aws/dir/file >&2; aws s3 cp s3://by-aws/dir/file - | sha256sum`},
		{"boto3", `python3 -c '
import boto3, os
s3 = boto3.client("s3")
s3.upload_file(os.path.expanduser("~/small"), "by-boto3", "dir/file")
s3.download_file("by-boto3", "dir/file", "/tmp/boto3")' && sha256sum </tmp/boto3`},
		{"rclone", `rclone copyto ~/small s3:by-rclone/dir/file >&2; rclone cat s3:by-rclone/dir/file | sha256sum`},
		{"s3cmd", `s3cmd --no-progress put ~/small s3://by-s3cmd/dir/file >&2; s3cmd --no-progress get --force s3://by-s3cmd/dir/file /tmp/s3cmd >&2; sha256sum </tmp/s3cmd`},
		{"minio-go", `~/minioput put by-minio dir/file ~/small >&2; ~/minioput get by-minio dir/file | sha256sum`},
		{"minio-go over https", `~/minioput -https put by-minio-https dir/file ~/small >&2; ~/minioput -https get by-minio-https dir/file | sha256sum`},
		{"aws over https", `export AWS_ENDPOINT_URL_S3=https://s3.lodge.internal
			aws s3 cp ~/small s3://by-aws-https/dir/file >&2; aws s3 cp s3://by-aws-https/dir/file - | sha256sum`},
		{"curl with any key", `curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user any:key -T ~/small http://s3.lodge.internal/by-curl/dir/file >&2
			curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user any:key http://s3.lodge.internal/by-curl/dir/file | sha256sum`},
	}
}

// storage: unmodified tools store and read in beta, and the host sees the same.
func (s *suite) storage(t *testing.T) {
	s.beta.PutFile(t, "/home/lodge/minioput", harness.Program(t, "lodge/e2e/minioput"), "755")
	s.beta.Run(t, "head -c 9000000 /dev/urandom >~/file; head -c 300000 ~/file >~/small")
	large, small := s.beta.Run(t, "sha256sum <~/file"), s.beta.Run(t, "sha256sum <~/small")
	for _, tool := range tools() {
		t.Run(tool.name, func(t *testing.T) {
			want := small
			if strings.Contains(tool.script, "~/file") {
				want = large
			}
			if got := s.beta.Run(t, tool.script); got != want {
				t.Errorf("read back %s, stored %s", got, want)
			}
		})
	}
	listed := s.beta.Run(t, "aws s3 ls")
	for _, bucket := range []string{"by-aws", "by-boto3", "by-rclone", "by-s3cmd", "by-minio", "by-minio-https", "by-aws-https", "by-curl"} {
		contains(t, "buckets that the first write makes", listed, " "+bucket)
	}
	t.Run("host", func(t *testing.T) { s.fromTheHost(t, large) })
	t.Run("events", s.events)
}

// hook is a web server that notes the events of a bucket.
const hook = `cat >~/hook.py <<'END'
import http.server, json
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        record = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['Records'][0]
        with open('/home/lodge/events', 'a') as f:
            print(self.path, self.headers['X-Lodge-Event'], record['s3']['bucket']['name'], record['s3']['object']['key'], file=f)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(('', 8090), Hook).serve_forever()
END
nohup python3 ~/hook.py >~/hook.log 2>&1 </dev/null &
`

// events: what is written to a bucket, from the host too, is posted to a program in the VM.
func (s *suite) events(t *testing.T) {
	s.beta.Run(t, hook+`aws s3 mb s3://hooked
aws s3api put-bucket-notification-configuration --bucket hooked --notification-configuration '{"QueueConfigurations": [
  {"QueueArn": "arn:lodge:http:::8090/hook", "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
   "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}}}]}'
echo one | aws s3 cp - s3://hooked/in/one
echo two | aws s3 cp - s3://hooked/elsewhere
aws s3 rm s3://hooked/in/one`)
	up := filepath.Join(t.TempDir(), "up")
	if err := os.WriteFile(up, []byte("three"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.h.Lodge(t, "s3", "cp", up, "beta:hooked/in/three")
	const want = "/hook s3:ObjectCreated:Put hooked in/one\n/hook s3:ObjectRemoved:Delete hooked in/one\n/hook s3:ObjectCreated:Put hooked in/three\n"
	harness.Eventually(t, "the events have come", 2*time.Minute, func() error {
		if got := s.beta.Run(t, "cat events hook.log 2>&1"); !strings.HasPrefix(got+"\n", want) {
			return errors.New(got)
		}
		return nil
	})
}

// fromTheHost uses lodge s3 both ways.
func (s *suite) fromTheHost(t *testing.T, sum string) {
	dir := t.TempDir()
	contains(t, "lodge s3 ls beta", s.h.Lodge(t, "s3", "ls", "beta"), "by-aws", "by-rclone")
	contains(t, "lodge s3 ls beta/by-aws/dir/", s.h.Lodge(t, "s3", "ls", "beta/by-aws/dir/"), "file")
	down := filepath.Join(dir, "down")
	s.h.Lodge(t, "s3", "cp", "beta:by-aws/dir/file", down)
	if r := s.h.Run(t, nil, "sha256sum", down); !strings.HasPrefix(r.Stdout, strings.Fields(sum)[0]) {
		t.Errorf("lodge s3 cp got %s, stored %s", r.Stdout, sum)
	}
	content := make([]byte, 100<<10)
	_, _ = rand.Read(content) // never fails
	up := filepath.Join(dir, "up")
	if err := os.WriteFile(up, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.h.Lodge(t, "s3", "cp", up, "beta:by-host/up")
	if diff := cmp.Diff(string(content), decode(t, s.beta.Run(t, "aws s3 cp s3://by-host/up - | base64 -w0"))); diff != "" {
		t.Error("the VM reads other bytes than lodge s3 cp has stored")
	}
	if r := s.h.TryLodge(t, "s3", "ls", "alpha/by-aws"); strings.Contains(r.Stdout, "file") {
		t.Errorf("alpha sees beta's bucket: %s", r.Text())
	}
}
