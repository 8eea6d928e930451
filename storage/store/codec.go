package store

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// recordFormat is the first byte of each record. Times in records of format 1, which are read too, are
// in nanoseconds, so end in 2262.
const (
	recordFormat    = 2
	oldRecordFormat = 1
)

// encoder appends the fields of a record: numbers as varints, text with its length before it.
type encoder struct{ b []byte }

func newEncoder() *encoder { return &encoder{b: append(make([]byte, 0, 256), recordFormat)} }

func (e *encoder) uint(n uint64)  { e.b = binary.AppendUvarint(e.b, n) }
func (e *encoder) int(n int64)    { e.b = binary.AppendVarint(e.b, n) }
func (e *encoder) fixed(n uint64) { e.b = binary.BigEndian.AppendUint64(e.b, n) }
func (e *encoder) text(s string)  { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) bytes(s []byte) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) time(t time.Time) {
	e.int(t.Unix())
	e.uint(uint64(t.Nanosecond()))
}

func (e *encoder) bool(v bool) {
	if v {
		e.uint(1)
	} else {
		e.uint(0)
	}
}

func (e *encoder) textMap(m map[string]string) {
	e.uint(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.text(k)
		e.text(m[k])
	}
}

// decoder reads what encoder wrote. After the first fault all it returns is zero, and err is set: no
// length in a record makes it allocate more than the record has bytes.
type decoder struct {
	b   []byte
	old bool // of oldRecordFormat
	bad bool
}

func newDecoder(b []byte) *decoder {
	d := &decoder{b: b}
	if len(b) == 0 || b[0] != recordFormat && b[0] != oldRecordFormat {
		return d.fail()
	}
	d.old = b[0] == oldRecordFormat
	d.b = b[1:]
	return d
}

func (d *decoder) fail() *decoder {
	d.bad, d.b = true, nil
	return d
}

// end returns ErrDamaged unless the record was read to its end without a fault.
func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return damaged("the record of %s cannot be read", what)
	}
	return nil
}

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) fixed() uint64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	n := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return n
}

func (d *decoder) bool() bool {
	n := d.uint()
	if n > 1 {
		d.fail()
	}
	return n == 1 && !d.bad
}

// raw returns a slice of the record itself.
func (d *decoder) raw() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) text() string { return string(d.raw()) }

// bytes returns a copy, nil when it is empty.
func (d *decoder) bytes() []byte {
	if raw := d.raw(); len(raw) > 0 {
		return bytes.Clone(raw)
	}
	return nil
}

func (d *decoder) time() time.Time {
	n := d.int()
	if d.old {
		if n == 0 {
			return time.Time{}
		}
		return time.Unix(0, n).UTC()
	}
	nanoseconds := d.uint()
	if nanoseconds >= uint64(time.Second) {
		d.fail()
	}
	if d.bad {
		return time.Time{}
	}
	return time.Unix(n, int64(nanoseconds)).UTC()
}

// count returns the number of elements that follow, each of at least size bytes.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// pick is textMap for one key; the others are passed over.
func (d *decoder) pick(key string) (found map[string]string) {
	for range d.count(2) {
		k, v := d.raw(), d.raw()
		if string(k) == key {
			found = map[string]string{key: string(v)}
		}
	}
	return found
}

func (d *decoder) textMap() map[string]string {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := d.text()
		m[k] = d.text()
	}
	return m
}
