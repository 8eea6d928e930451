package store

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/minio/crc64nvme"

	"lodge/gateway"
)

// seal computes the checksums of the files that migrate has moved without reading them.
func (s *Store) seal(ctx context.Context) error {
	vms, err := s.vms()
	if err != nil {
		return err
	}
	for _, vm := range vms {
		var ids []uint64
		err := each(s.index, vmKey(vm, kindUnsealed, 0), func(key, _ []byte) error {
			ids = append(ids, numIn(key))
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := s.sealOne(ctx, vm, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// sealOne pins the file while it reads it: a record that is gone by then is not written again.
func (s *Store) sealOne(ctx context.Context, vm gateway.ID, id uint64) error {
	k := blobKey{vm, content{kind: kindFile, id: id}}
	s.garbage.pin(k)
	defer func() {
		if s.garbage.unpin(k) {
			s.collect(vm, k.content, 0)
		}
	}()
	b := s.index.NewBatch()
	defer func() { _ = b.Close() }() // it is committed, or nothing of it counts
	if err := b.Delete(numKey(vm, kindUnsealed, id), nil); err != nil {
		return err
	}
	v, err := value(s.index, numKey(vm, kindFile, id))
	if err != nil && !missing(err) {
		return err
	}
	if err == nil {
		record, err := decodeFile(v)
		if err != nil {
			return err
		}
		if record.crcs, err = s.checksums(ctx, vm, id, record.size); err != nil {
			if errors.Is(err, ErrDamaged) {
				s.logDamage(Damage{VM: vm, Err: err})
				return nil
			}
			return err
		}
		if err := b.Set(numKey(vm, kindFile, id), record.encode(), nil); err != nil {
			return err
		}
	}
	return s.commitSealed(vm, id, b)
}

// commitSealed commits the checksums of a file, unless its mark is gone: then a fork that failed was removed meanwhile.
func (s *Store) commitSealed(vm gateway.ID, id uint64, b *pebble.Batch) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	a.commits.RLock()
	defer a.commits.RUnlock()
	if a.removed {
		return nil
	}
	if _, err := value(s.index, numKey(vm, kindUnsealed, id)); missing(err) {
		return nil
	} else if err != nil {
		return err
	}
	return b.Commit(pebble.Sync)
}

// checksums reads a file, a MiB every now and then.
func (s *Store) checksums(ctx context.Context, vm gateway.ID, id uint64, size int64) (crcs []uint64, err error) {
	o, err := s.openFile(vm, id, size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.f.Close()) }()
	tick := time.NewTicker(scrubPause / 10)
	defer tick.Stop()
	buf := make([]byte, chunkBytes)
	for at := int64(0); at < size; at += chunkBytes {
		chunk := buf[:min(chunkBytes, size-at)]
		if _, err := o.ReadAt(chunk, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		crcs = append(crcs, crc64nvme.Checksum(chunk))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	return crcs, nil
}
