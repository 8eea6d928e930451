package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
)

// streamPartBytes is the part size of uploads of unknown length: up to 160 GB in 10,000 parts, and
// 16 MiB of memory.
const streamPartBytes = 16 << 20

type s3CpCmd struct {
	Src string `arg:"" help:"A file, - for stdin, or VM:BUCKET/KEY." name:"source"`
	Dst string `arg:"" help:"VM:BUCKET/KEY, a file or directory, or - for stdout." name:"target"`
	Raw bool   `help:"Write control characters to the terminal unchanged."`
}

// copied is the JSON form of a copy.
type copied struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Bytes  int64  `json:"bytes"`
}

// Run copies one object.
func (c *s3CpCmd) Run(ctx context.Context, a *app) error {
	job, err := parseCopy(c.Src, c.Dst)
	if err != nil {
		return err
	}
	if job.local == "-" && !job.up && a.JSON {
		return gateway.Invalid("the object and the JSON cannot both go to stdout").WithHint("Copy to a file, or leave out --json.")
	}
	client, err := a.s3Client(ctx, job.vm)
	if err != nil {
		return err
	}
	p := a.progress()
	defer p.end()
	var n int64
	if job.up {
		n, err = a.upload(ctx, client, job, p)
	} else {
		n, err = a.download(ctx, client, job, p, c.Raw)
	}
	if err != nil {
		if _, ours := errors.AsType[*gateway.Error](err); ours {
			return err
		}
		return s3Error(ctx, job.vm, err)
	}
	p.end()
	if job.local == "-" && !job.up {
		return nil // stdout has the object
	}
	return a.print(copied{job.bucket, job.key, n}, func(w io.Writer) {
		row(w, fmt.Sprintf("Copied %s (%s).", job.remote(), size(n)))
	})
}

// copyJob is one object, one file, and the direction.
type copyJob struct {
	up     bool // from the file to the object
	vm     string
	bucket string
	key    string
	local  string // a path, or - for stdin or stdout
}

// remote is the object as the command line names it.
func (j copyJob) remote() string { return j.vm + ":" + j.bucket + "/" + j.key }

// parseCopy finds which side is the object. As in scp, that is the one with a colon before any
// slash.
func parseCopy(src, dst string) (copyJob, error) {
	if strings.HasPrefix(src, "s3://") || strings.HasPrefix(dst, "s3://") {
		return copyJob{}, gateway.Invalid("an s3:// address names no VM").WithHint("Write the object as vm:bucket/key.")
	}
	srcVM, srcPath, srcRemote := cutRemote(src)
	dstVM, dstPath, dstRemote := cutRemote(dst)
	if srcRemote == dstRemote {
		return copyJob{}, gateway.Invalid("one side must be an object and the other a file").
			WithHint("Write the object as vm:bucket/key, a file whose name has a colon as ./name.")
	}
	job, path := copyJob{up: dstRemote, vm: dstVM, local: src}, dstPath
	if srcRemote {
		job.vm, job.local, path = srcVM, dst, srcPath
	}
	job.bucket, job.key, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if job.up && (job.key == "" || strings.HasSuffix(job.key, "/")) && job.local != "-" {
		job.key += filepath.Base(job.local)
	}
	if job.bucket == "" || job.key == "" || job.local == "" || strings.HasSuffix(job.key, "/") {
		return copyJob{}, gateway.Invalid("not the name of an object: %q", job.vm+":"+path).WithHint("Write it as vm:bucket/key.")
	}
	return job, nil
}

// cutRemote splits vm:path; a path with a slash before the colon is local.
func cutRemote(s string) (vm, path string, remote bool) {
	vm, path, remote = strings.Cut(s, ":")
	return vm, path, remote && vm != "" && !strings.Contains(vm, "/")
}

func (a *app) upload(ctx context.Context, client *minio.Client, job copyJob, p *progress) (int64, error) {
	from, total := a.in, int64(-1)
	options := minio.PutObjectOptions{PartSize: streamPartBytes}
	if job.local != "-" {
		f, err := os.Open(job.local)
		if err != nil {
			return 0, gateway.Invalid("cannot read the file: %v", err).Because(err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return 0, gateway.Invalid("%s is not a plain file", job.local).WithHint("Send it through a pipe: … | lodge s3 cp - %s", job.remote())
		}
		from, total = f, info.Size()
		options.PartSize = 0 // chosen by the size
	}
	options.Progress = &counter{p: p, step: gateway.Progress{Phase: "upload", Text: job.key, Total: total}, began: time.Now()}
	sent, err := client.PutObject(ctx, job.bucket, job.key, from, total, options)
	return sent.Size, err
}

func (a *app) download(ctx context.Context, client *minio.Client, job copyJob, p *progress, raw bool) (int64, error) {
	object, err := client.GetObject(ctx, job.bucket, job.key, minio.GetObjectOptions{})
	if err != nil {
		return 0, err
	}
	defer object.Close() //nolint:errcheck // it was only read
	info, err := object.Stat()
	if err != nil {
		return 0, err
	}
	count := &counter{p: p, step: gateway.Progress{Phase: "download", Text: job.key, Total: info.Size}, began: time.Now()}
	from := io.TeeReader(object, count)
	if job.local == "-" {
		return info.Size, a.passed(from, raw)
	}
	to := job.local
	if dir, err := os.Stat(to); strings.HasSuffix(to, "/") || (err == nil && dir.IsDir()) {
		to = filepath.Join(to, path.Base(job.key))
	}
	return writeFile(to, from)
}

// counter turns bytes into progress. It is safe for concurrent use: parts of an upload are sent at
// the same time.
type counter struct {
	p     *progress
	began time.Time

	mu   sync.Mutex
	step gateway.Progress
}

// Read implements io.Reader for minio.PutObjectOptions.Progress: minio reads as many bytes from it
// as it has sent.
func (c *counter) Read(b []byte) (int, error) { return c.Write(b) }

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step.Done += int64(len(b))
	c.step.Elapsed = time.Since(c.began)
	c.p.show(c.step)
	return len(b), nil
}
