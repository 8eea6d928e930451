package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"lodge/gateway"
)

// Keys of the index. All of a VM's begin with 'V' and its 16 bytes, so one range holds them. A
// bucket's objects have its number, not its name: a new bucket never meets what an old one left.
// Names of objects have no NUL, so a NUL ends one where more follows, and the order is that of names.
//
//	S <name>                              of the store: format, counter, identifier of the seal key
//	X <vm>                                a removal that is not complete
//	V <vm> b <bucket>                     bucket
//	V <vm> o <bucket#> <name>             latest version, unless it is a delete marker
//	V <vm> v <bucket#> <name> 0 <^seq>    older versions, and all delete markers
//	V <vm> n <bucket#> <name>             seq of the null version, if that is in v
//	V <vm> u <bucket#> <name> 0 <upload#> upload
//	V <vm> p <upload#> <number>           part
//	V <vm> d <id>                         small body
//	V <vm> f <id>                         large body: size and checksums of the file
//	V <vm> l <id>                         parts of a multipart object
//	V <vm> r <id>                         references to f or l beyond the first (merged)
//	V <vm> g <id> <seq>                   content that lost a reference: it may have been the last
//	V <vm> q <bucket>                     usage (merged)
//	V <vm> w                              footprint (merged)
//	V <vm> m <id>                         f without checksums, until they are computed
//	V <vm> e <number>                     event that waits for its delivery
//	V <vm> k                              count of dropped events (merged)
//	V <vm> a                              a restore, drop or fork that is in progress
//	V <vm> c                              of what VM and snapshot this one is a fork
//	V <vm> s <snapshot>                   name of the snapshot
//	V <vm> h <snapshot> <key from its kind on>  value before the first change after the snapshot
const (
	ofStore   = 'S'
	ofVM      = 'V'
	ofRemoval = 'X'

	kindBucket    = 'b'
	kindObject    = 'o'
	kindVersion   = 'v'
	kindNull      = 'n'
	kindUpload    = 'u'
	kindPart      = 'p'
	kindSmall     = 'd'
	kindFile      = 'f'
	kindList      = 'l'
	kindRefs      = 'r'
	kindGarbage   = 'g'
	kindUsage     = 'q'
	kindFootprint = 'w'
	kindSnapshot  = 's'
	kindHistory   = 'h'
	kindUnsealed  = 'm'
	kindProgress  = 'a'
	kindForked    = 'c'
	kindEvent     = 'e'
	kindDropped   = 'k'
)

const (
	maxNameBytes   = 1024
	maxBucketBytes = 255
	vmKeyLen       = 1 + 16
)

// vmKey begins a key of vm.
func vmKey(vm gateway.ID, kind byte, capacity int) []byte {
	k := make([]byte, 0, vmKeyLen+1+capacity)
	k = append(k, ofVM)
	k = append(k, vm[:]...)
	return append(k, kind)
}

// numKey is a key that ends in a number.
func numKey(vm gateway.ID, kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(vmKey(vm, kind, 8), n)
}

// textKey is a key that ends in a bucket's name.
func textKey(vm gateway.ID, kind byte, name string) []byte {
	return append(vmKey(vm, kind, len(name)), name...)
}

// nameKey is a key with a bucket's number and an object's name.
func nameKey(vm gateway.ID, kind byte, bucket uint64, name string) []byte {
	k := binary.BigEndian.AppendUint64(vmKey(vm, kind, 8+len(name)+9), bucket)
	return append(k, name...)
}

// seqKey is a nameKey with a number behind the name.
func seqKey(vm gateway.ID, kind byte, bucket uint64, name string, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(nameKey(vm, kind, bucket, name), 0), n)
}

func versionKey(vm gateway.ID, bucket uint64, name string, seq uint64) []byte {
	return seqKey(vm, kindVersion, bucket, name, ^seq)
}

func partKey(vm gateway.ID, upload uint64, number int) []byte {
	return binary.BigEndian.AppendUint16(numKey(vm, kindPart, upload), uint16(number))
}

const nameAt = vmKeyLen + 1 + 8 // where a nameKey's name begins

// nameIn returns the name in a nameKey.
func nameIn(key []byte) string { return string(key[nameAt:]) }

// seqIn returns the name and the number in a seqKey.
func seqIn(key []byte) (name string, n uint64, ok bool) {
	end := len(key) - 9
	if end <= nameAt || key[end] != 0 {
		return "", 0, false
	}
	return string(key[nameAt:end]), binary.BigEndian.Uint64(key[end+1:]), true
}

// after returns the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i, b := range slices.Backward(end) {
		if b < math.MaxUint8 {
			end[i]++
			return end[:i+1]
		}
	}
	return nil // no key is behind it
}

func check(k Key) error {
	if err := checkBucket(k.Bucket); err != nil {
		return err
	}
	return checkName(k.Name)
}

func checkBucket(name string) error {
	if name == "" || len(name) > maxBucketBytes {
		return fmt.Errorf("%w: a bucket's name has 1 to %d bytes, this one %d", ErrName, maxBucketBytes, len(name))
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the key is empty", ErrName)
	case len(name) > maxNameBytes:
		return fmt.Errorf("%w: a key has at most %d bytes, this one %d", ErrName, maxNameBytes, len(name))
	case strings.Contains(name, "\x00"):
		return fmt.Errorf("%w: the key has a NUL byte", ErrName)
	}
	return nil
}

func garbageKey(vm gateway.ID, id, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(numKey(vm, kindGarbage, id), seq)
}

// numIn returns the number in a numKey.
func numIn(key []byte) uint64 { return binary.BigEndian.Uint64(key[vmKeyLen+1:]) }
