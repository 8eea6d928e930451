package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/storage/store"
)

// Expire removes what the lifecycle rules of a VM's buckets have ended by now: objects (a delete marker
// hides them where the bucket has versions), older versions, delete markers and uploads. It can end
// early and be repeated at any time. What object lock protects stays.
func (h *Handler) Expire(ctx context.Context, vm gateway.ID, now time.Time) error {
	for after := ""; ; {
		buckets, more, err := h.Store.Buckets(vm, "", after, maxPage)
		if err != nil {
			return err
		}
		for _, listed := range buckets {
			after = listed.Name
			b, err := h.Store.Bucket(vm, listed.Name)
			if errors.Is(err, store.ErrNoBucket) {
				continue
			}
			if err != nil {
				return err
			}
			var conf lifecycleXML
			if text, ok := b.Config[lifecycleConfig]; !ok || xml.Unmarshal(text, &conf) != nil {
				continue
			}
			e := expirer{h.Store, b, conf.Rules, now}
			if err := errors.Join(e.versions(ctx), e.uploads(ctx)); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// expirer carries out the rules of one bucket.
type expirer struct {
	store  *store.Store
	bucket store.Bucket
	rules  []lifecycleRule
	now    time.Time
}

func (e expirer) any(is func(lifecycleRule) bool) bool {
	return slices.ContainsFunc(e.rules, is)
}

// versions walks over all versions, newest first of each key, and deletes page by page.
func (e expirer) versions(ctx context.Context) error {
	q := store.Query{VM: e.bucket.VM, Bucket: e.bucket.Name, Max: maxPage, Versions: true, Tags: true}
	var last store.Object // the version before, of the same key or not
	older, only := 0, true
	for {
		page, err := e.store.List(ctx, q)
		if err != nil {
			return err
		}
		var ended []store.Deletion
		marker := func() { // last is the oldest of its key
			if last.Deleted && last.Latest && only && e.any(func(r lifecycleRule) bool { return r.expiresMarker(last) }) {
				ended = append(ended, store.Deletion{Name: last.Key.Name, Version: last.Version, Expired: true})
			}
		}
		for _, o := range page.Objects {
			if o.Key != last.Key {
				marker()
				older, only = 0, true
			} else {
				only = false
			}
			switch {
			case o.Latest && e.any(func(r lifecycleRule) bool { return r.expires(o, e.now) }):
				ended = append(ended, store.Deletion{Name: o.Key.Name, If: store.Condition{IfMatch: o.ETag, IfModified: o.Modified}, Expired: true})
			case !o.Latest:
				if e.any(func(r lifecycleRule) bool { return r.expiresOld(o, last.Modified, older, e.now) }) {
					ended = append(ended, store.Deletion{Name: o.Key.Name, Version: o.Version, Older: true, Expired: true})
				}
				older++
			}
			last = o
		}
		if !page.More {
			marker()
		}
		if err := e.remove(ctx, ended); err != nil || !page.More {
			return err
		}
		q.After, q.AfterVersion = page.Next, page.NextVersion
	}
}

// remove deletes; what is locked, or was replaced in between, stays.
func (e expirer) remove(ctx context.Context, ended []store.Deletion) error {
	if len(ended) == 0 {
		return nil
	}
	results, err := e.store.DeleteAll(ctx, e.bucket.VM, e.bucket.Name, ended)
	if err != nil {
		return err
	}
	for _, res := range results {
		if _, known := AsError(res.Err); res.Err != nil && !known {
			return res.Err
		}
	}
	return nil
}

func (e expirer) uploads(ctx context.Context) error {
	q := store.Query{VM: e.bucket.VM, Bucket: e.bucket.Name, Max: maxPage}
	for {
		page, err := e.store.Uploads(ctx, q)
		if err != nil {
			return err
		}
		for _, up := range page.Uploads {
			if e.any(func(r lifecycleRule) bool { return r.aborts(up, e.now) }) {
				if err := e.store.Abort(up.Key, up.ID); err != nil && !errors.Is(err, store.ErrNoUpload) {
					return err
				}
			}
		}
		if !page.More {
			return nil
		}
		q.After, q.AfterVersion = page.Next, page.NextUpload
	}
}
