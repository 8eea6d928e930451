package cli

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

type s3LsCmd struct {
	Path string `arg:"" help:"VM to list its buckets, VM/BUCKET or VM/BUCKET/PREFIX to list objects." predictor:"vm"`
}

// s3Bucket and s3Object are the JSON forms of the list.
type s3Bucket struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

type s3Object struct {
	Key      string    `json:"key"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
	ETag     string    `json:"etag"`
}

// Run lists buckets or objects.
func (c *s3LsCmd) Run(ctx context.Context, a *app) error {
	name, path, _ := strings.Cut(c.Path, "/")
	bucket, prefix, _ := strings.Cut(path, "/")
	client, err := a.s3Client(ctx, name)
	if err != nil {
		return err
	}
	if bucket == "" {
		return listBuckets(ctx, a, name, client)
	}
	objects := []s3Object{} // not nil: an empty list is [] in JSON
	for o := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return s3Error(ctx, name, o.Err)
		}
		objects = append(objects, s3Object{o.Key, o.Size, o.LastModified, o.ETag})
	}
	return a.print(objects, func(w io.Writer) {
		for _, o := range objects {
			row(w, o.Modified.Local().Format("2006-01-02 15:04:05"), size(o.Bytes), o.Key)
		}
	})
}

func listBuckets(ctx context.Context, a *app, name string, client *minio.Client) error {
	found, err := client.ListBuckets(ctx)
	if err != nil {
		return s3Error(ctx, name, err)
	}
	buckets := []s3Bucket{}
	for _, b := range found {
		buckets = append(buckets, s3Bucket{b.Name, b.CreationDate})
	}
	return a.print(buckets, func(w io.Writer) {
		if len(buckets) == 0 {
			row(w, "No buckets. The first copy creates one: lodge s3 cp FILE "+name+":files/")
		}
		for _, b := range buckets {
			row(w, b.Created.Local().Format("2006-01-02 15:04:05"), b.Name)
		}
	})
}
