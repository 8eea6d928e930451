package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
