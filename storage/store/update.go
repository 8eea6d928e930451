package store

// Update changes what a version has besides its body: its tags, retention, legal hold, ACL and headers. "" is
// the latest. change gets it as it is, and its error is returned. Whether a retention may be shortened is
// for change to decide. Errors: those of Head, ErrTooLarge.
func (s *Store) Update(key Key, id string, change func(*Meta) error) (Object, error) {
	if err := check(key); err != nil {
		return Object{}, err
	}
	if err := s.hasRoom(0); err != nil {
		return Object{}, err
	}
	var o Object
	err := s.commit(target{vm: key.VM, bucket: key.Bucket, names: []string{key.Name}}, func(x *tx, b *Bucket) error {
		v, err := lookup(x.b, b, key, id)
		if err != nil {
			return err
		}
		if v.Deleted {
			return ErrDeleted
		}
		if err := x.remove(b.Name, v.key, v.raw, v.version); err != nil {
			return err
		}
		if err := change(&v.Meta); err != nil {
			return err
		}
		o = v.Object
		return x.put(b.Name, v.key, v.raw, v.version)
	})
	return o, err
}
