package store

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
)

var benchSizes = map[string]int{"4KiB": 4 << 10, "64KiB": 64 << 10, "8MiB": 8 << 20}

// BenchmarkPut stores new objects from 16 callers for each processor, synced.
func BenchmarkPut(b *testing.B) {
	for name, size := range benchSizes {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir())
			body := random(1, size)
			var n atomic.Int64
			b.SetBytes(int64(size))
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := Key{blog, "box", fmt.Sprint(n.Add(1) % 2000)} // a working set, so that the disk stays
					_, err := s.Put(b.Context(), key, Write{Body: bytes.NewReader(body), Size: int64(size)})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for name, size := range benchSizes {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir())
			for i := range 20 {
				put(b, s, Key{blog, "box", fmt.Sprint(i)}, random(1, size))
			}
			var n atomic.Int64
			b.SetBytes(int64(size))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					body, err := s.Get(Key{blog, "box", fmt.Sprint(n.Add(1) % 20)}, "")
					if err == nil {
						_, err = body.WriteTo(io.Discard)
						_ = body.Close() // it was only read
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkList reads pages of 1,000 from the middle of 100,000 keys, and of 100 prefixes of 1,000 keys each.
func BenchmarkList(b *testing.B) {
	s := open(b, b.TempDir())
	err := s.commit(target{vm: blog, bucket: "box", create: true}, func(x *tx, bucket *Bucket) error {
		for i := range 100_000 {
			key := Key{blog, "box", fmt.Sprintf("%02d/%06d", i/1000, i)}
			v := &version{Object: Object{Key: key, ETag: "d41d8cd98f00b204e9800998ecf8427e", Meta: Meta{Header: map[string]string{"content-type": "text/plain"}}}}
			if err := x.write(bucket, v); err != nil {
				return err
			}
		}
		return nil
	})
	must(b, err)
	must(b, s.index.Flush())
	for name, q := range map[string]Query{"flat": {After: "50/050000"}, "delimiter": {Delimiter: "/"}} {
		b.Run(name, func(b *testing.B) {
			q.VM, q.Bucket = blog, "box"
			for b.Loop() {
				p, err := s.List(b.Context(), q)
				if err != nil || len(p.Objects)+len(p.Prefixes) < 100 {
					b.Fatal(len(p.Objects), err)
				}
			}
		})
	}
}
