package storage

import (
	"bytes"
	"io"
	"testing"

	"github.com/minio/minio-go/v7"
)

// BenchmarkPut stores objects of 1 KiB, synced, under random names.
func BenchmarkPut(b *testing.B) {
	c := newHost(b).guest("blog").keyed()
	data := random(1 << 10)
	b.SetBytes(1 << 10)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.PutObject(b.Context(), "box", "dir/"+randomName(), bytes.NewReader(data), 1<<10, minio.PutObjectOptions{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func benchmarkGet(b *testing.B, size int) {
	b.Helper()
	c := newHost(b).guest("blog").keyed()
	put(b, c, "box", "k", random(size))
	b.SetBytes(int64(size))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o, err := c.GetObject(b.Context(), "box", "k", minio.GetObjectOptions{})
			if err == nil {
				_, err = io.Copy(io.Discard, o)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkGet1KiB(b *testing.B)  { benchmarkGet(b, 1<<10) }
func BenchmarkGet16MiB(b *testing.B) { benchmarkGet(b, 16<<20) }

func randomName() string { return hexSHA256(string(random(8)))[:16] }
