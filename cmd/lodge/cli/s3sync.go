package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"lodge/gateway"
)

// syncWorkers is how many files are copied at once.
const syncWorkers = 4

type s3SyncCmd struct {
	Src    string `arg:"" help:"A directory, or VM:BUCKET/PREFIX." name:"source"`
	Dst    string `arg:"" help:"VM:BUCKET/PREFIX, or a directory." name:"target"`
	Delete bool   `help:"Remove from the target what the source does not have."`
}

// Help is the text below the usage.
func (*s3SyncCmd) Help() string {
	return "Files are copied that are missing in the target, that have another size there, or that are older there than in the source. " +
		"Symbolic links and devices are not followed. Objects whose keys cannot be names of files are listed, and the exit code is 1."
}

// synced is the JSON form of a sync.
type synced struct {
	Copied  int      `json:"copied"`
	Bytes   int64    `json:"bytes"`
	Removed int      `json:"removed"`
	Skipped []string `json:"skipped"` // keys that cannot be names of files
}

// syncFile is one side of a file.
type syncFile struct {
	bytes    int64
	modified time.Time
}

// syncJob is a directory, a prefix of a bucket, and the direction.
type syncJob struct {
	copyJob

	client *minio.Client
	root   *os.Root // the directory: nothing outside is read or written
	p      *progress

	mu   sync.Mutex
	done synced
}

// Run makes the target like the source.
func (c *s3SyncCmd) Run(ctx context.Context, a *app) error {
	job, err := parseSync(c.Src, c.Dst)
	if err != nil {
		return err
	}
	if !job.up {
		if err := os.MkdirAll(job.local, 0o777); err != nil { //nolint:gosec // the umask applies, as to any new directory
			return unwritable(err)
		}
	}
	if job.root, err = os.OpenRoot(job.local); err != nil {
		return gateway.Invalid("cannot read the directory: %v", err).Because(err)
	}
	defer job.root.Close() //nolint:errcheck // what was written is closed
	if job.client, err = a.s3Client(ctx, job.vm); err != nil {
		return err
	}
	job.p = a.progress()
	err = job.run(ctx, c.Delete)
	job.p.end()
	if err != nil {
		if gateway.KindOf(err) == gateway.KindInvalid {
			return err
		}
		return s3Error(ctx, job.vm, err)
	}
	err = a.print(job.done, func(w io.Writer) {
		row(w, fmt.Sprintf("Copied %d files (%s), removed %d.", job.done.Copied, size(job.done.Bytes), job.done.Removed))
		for _, key := range job.done.Skipped {
			row(w, "Skipped "+key+": no file can have this name here.")
		}
	})
	if err == nil && len(job.done.Skipped) > 0 {
		err = gateway.Errorf(gateway.KindConflict, "%d objects were not copied", len(job.done.Skipped)).WithHint("Copy one: lodge s3 cp %s:%s/KEY FILE", job.vm, job.bucket)
	}
	return err
}

// parseSync finds which side is the bucket. A prefix is that of a directory: it ends with a slash,
// unless it is empty.
func parseSync(src, dst string) (*syncJob, error) {
	srcVM, srcPath, srcRemote := cutRemote(src)
	dstVM, dstPath, dstRemote := cutRemote(dst)
	if srcRemote == dstRemote || strings.HasPrefix(src, "s3://") || strings.HasPrefix(dst, "s3://") {
		return nil, gateway.Invalid("one side must be a bucket and the other a directory").
			WithHint("An example: lodge s3 sync ./site blog:site/; a directory whose name has a colon is ./name.")
	}
	job, at := &syncJob{copyJob: copyJob{up: dstRemote, vm: dstVM, local: src}}, dstPath
	if srcRemote {
		job.vm, job.local, at = srcVM, dst, srcPath
	}
	job.bucket, job.key, _ = strings.Cut(strings.TrimPrefix(at, "/"), "/")
	if job.key != "" && !strings.HasSuffix(job.key, "/") {
		job.key += "/"
	}
	if job.bucket == "" || job.local == "" {
		return nil, gateway.Invalid("not a bucket: %q", job.vm+":"+at).WithHint("Write it as vm:bucket/prefix.")
	}
	job.done.Skipped = []string{} // an empty list is [] in JSON
	return job, nil
}

func (j *syncJob) run(ctx context.Context, remove bool) error {
	here, err := j.files()
	if err != nil {
		return gateway.Invalid("cannot read the directory: %v", err).Because(err)
	}
	there, err := j.objects(ctx)
	if err != nil {
		return err
	}
	from, to, one := there, here, j.download
	if j.up {
		from, to, one = here, there, j.upload
	}
	group, copying := errgroup.WithContext(ctx)
	group.SetLimit(syncWorkers)
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if old, ok := to[name]; ok && old.bytes == from[name].bytes && !from[name].modified.After(old.modified) {
			continue
		}
		group.Go(func() error { return j.copied(from[name], name, one(copying, name, from[name])) })
	}
	if err := group.Wait(); err != nil || !remove {
		return err
	}
	return j.remove(ctx, from, to)
}

// copied counts a file.
func (j *syncJob) copied(f syncFile, name string, err error) error {
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done.Copied++
	j.done.Bytes += f.bytes
	j.p.show(gateway.Progress{Phase: "sync", Text: name, Done: j.done.Bytes})
	return nil
}

// files are the regular files of the directory, by their names with slashes.
func (j *syncJob) files() (map[string]syncFile, error) {
	all := map[string]syncFile{}
	err := fs.WalkDir(j.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[name] = syncFile{info.Size(), info.ModTime()}
		}
		return err
	})
	return all, err
}

// objects are those below the prefix, by the rest of their keys. Where the bucket is the target, it
// may not exist yet.
func (j *syncJob) objects(ctx context.Context) (map[string]syncFile, error) {
	all := map[string]syncFile{}
	for o := range j.client.ListObjects(ctx, j.bucket, minio.ListObjectsOptions{Prefix: j.key, Recursive: true}) {
		if j.up && minio.ToErrorResponse(o.Err).Code == minio.NoSuchBucket {
			return all, nil
		}
		if o.Err != nil {
			return nil, o.Err
		}
		name := strings.TrimPrefix(o.Key, j.key)
		if !j.up && (!fs.ValidPath(name) || name == ".") { // "..", "a//b", "/a", "a/" and the prefix itself
			j.done.Skipped = append(j.done.Skipped, o.Key)
			continue
		}
		all[name] = syncFile{o.Size, o.LastModified}
	}
	return all, nil
}

func (j *syncJob) upload(ctx context.Context, name string, _ syncFile) error {
	f, err := j.root.Open(name)
	if err != nil {
		return gateway.Invalid("cannot read the file: %v", err).Because(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() { // replaced meanwhile
		return gateway.Invalid("%s is not a plain file any more", name)
	}
	_, err = j.client.PutObject(ctx, j.bucket, j.key+name, f, info.Size(), minio.PutObjectOptions{})
	return err
}

// download writes a file that appears under its name when it is complete, with the object's time.
func (j *syncJob) download(ctx context.Context, name string, of syncFile) error {
	object, err := j.client.GetObject(ctx, j.bucket, j.key+name, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	defer object.Close() //nolint:errcheck // it was only read
	if _, err := object.Stat(); err != nil {
		return err
	}
	if err := j.root.MkdirAll(path.Dir(name), 0o777); err != nil { //nolint:gosec // as above
		return unwritable(err)
	}
	temp := path.Join(path.Dir(name), ".lodge-s3-"+rand.Text())
	f, err := j.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) //nolint:gosec // as above
	if err != nil {
		return unwritable(err)
	}
	_, err = io.Copy(f, object)
	if closed := f.Close(); err == nil && closed != nil {
		err = unwritable(closed)
	}
	if err == nil {
		if err = j.root.Chtimes(temp, time.Time{}, of.modified); err == nil {
			err = j.root.Rename(temp, name)
		}
		if err != nil {
			err = unwritable(err)
		}
	}
	if err != nil {
		_ = j.root.Remove(temp) // the first error counts
	}
	return err
}

// remove removes from the target what the source does not have.
func (j *syncJob) remove(ctx context.Context, from, to map[string]syncFile) error {
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(to)), func(name string) bool {
		_, there := from[name]
		return there
	})
	if j.up {
		n, err := removeKeys(ctx, j.client, j.bucket, func(yield func(string) bool) {
			for _, name := range gone {
				if !yield(j.key + name) {
					return
				}
			}
		})
		j.done.Removed = n
		return err
	}
	for _, name := range gone {
		if err := j.root.Remove(name); err != nil {
			return unwritable(err)
		}
		j.done.Removed++
	}
	return nil
}
