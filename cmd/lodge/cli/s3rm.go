package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
)

type s3RmCmd struct {
	Path      string `arg:"" help:"VM/BUCKET/KEY; with --recursive, VM/BUCKET or VM/BUCKET/PREFIX." predictor:"vm"`
	Recursive bool   `help:"Remove all objects whose keys begin with the prefix." short:"r"`
	Yes       bool   `help:"Do not ask before removing many." short:"y"`
}

// Help is the text below the usage.
func (*s3RmCmd) Help() string {
	return "The bucket stays. Where it has versions, the older ones stay too, and a delete marker hides them."
}

// removedObjects is the JSON form of a removal.
type removedObjects struct {
	Bucket  string `json:"bucket"`
	Removed int    `json:"removed"`
}

// Run removes one object, or all below a prefix.
func (c *s3RmCmd) Run(ctx context.Context, a *app) error {
	name, path, _ := strings.Cut(c.Path, "/")
	bucket, key, _ := strings.Cut(path, "/")
	switch {
	case bucket == "":
		return gateway.Invalid("not an object: %.100q", c.Path).WithHint("An example: lodge s3 rm %s/photos/a.jpg", name)
	case key == "" && !c.Recursive:
		return gateway.Invalid("%s is a bucket", c.Path).WithHint("To remove all of its objects: lodge s3 rm --recursive %s", c.Path)
	}
	client, err := a.s3Client(ctx, name)
	if err != nil {
		return err
	}
	if !c.Recursive {
		if _, err = client.StatObject(ctx, bucket, key, minio.StatObjectOptions{}); err == nil { // S3 removes what is not there, too
			err = client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})
		}
		if err != nil {
			return s3Error(ctx, name, err)
		}
		return a.print(removedObjects{bucket, 1}, func(w io.Writer) { row(w, c.Path+" is removed.") })
	}
	if !c.Yes {
		if err := a.confirm("Remove all objects below " + c.Path + "?"); err != nil {
			return err
		}
	}
	n, err := removeBelow(ctx, client, bucket, key)
	if err != nil {
		return s3Error(ctx, name, err)
	}
	return a.print(removedObjects{bucket, n}, func(w io.Writer) { row(w, fmt.Sprintf("Removed %d objects.", n)) })
}

// removeBelow removes the objects whose keys begin with a prefix, as they are listed.
func removeBelow(ctx context.Context, client *minio.Client, bucket, prefix string) (int, error) {
	var failed error
	keys := func(yield func(string) bool) {
		for o := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if failed = o.Err; failed != nil || !yield(o.Key) {
				return
			}
		}
	}
	n, err := removeKeys(ctx, client, bucket, keys)
	if failed != nil {
		err = failed
	}
	return n, err
}

// removeKeys removes objects, by 1,000 at once.
func removeKeys(ctx context.Context, client *minio.Client, bucket string, keys func(yield func(string) bool)) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	objects, finished := make(chan minio.ObjectInfo), make(chan struct{})
	sent, kept := 0, 0
	go func() {
		defer close(finished)
		defer close(objects)
		for key := range keys {
			select {
			case objects <- minio.ObjectInfo{Key: key}:
				sent++
			case <-ctx.Done():
				return
			}
		}
	}()
	var err error
	for failed := range client.RemoveObjects(ctx, bucket, objects, minio.RemoveObjectsOptions{}) {
		if kept++; err == nil {
			err = failed.Err
		}
	}
	cancel()
	<-finished
	return sent - kept, err
}
