package store

import (
	"context"
	"errors"

	"lodge/gateway"
)

// UsageOf counts what is stored below a prefix of a bucket, without uploads. It reads all of that.
// ErrNoBucket.
func (s *Store) UsageOf(ctx context.Context, vm gateway.ID, bucket, prefix string) (u Usage, err error) {
	at, err := s.moment(vm)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	b, err := bucketOf(at, vm, bucket)
	if err != nil {
		return u, err
	}
	for _, kind := range []byte{kindObject, kindVersion} {
		err = errors.Join(err, each(at, nameKey(vm, kind, b.number, prefix), func(_, value []byte) error {
			v, err := decodeVersion(Key{}, value)
			u.add(Usage{Bytes: v.Size, Objects: 1})
			return errors.Join(err, ctx.Err())
		}))
	}
	return u, err
}
