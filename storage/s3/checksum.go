package s3

import (
	"crypto/md5"  //nolint:gosec // S3 has it, as a checksum
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/minio/crc64nvme"
	"github.com/zeebo/xxh3"

	"lodge/storage/store"
)

// algorithm is one of the checksums of objects.
type algorithm struct {
	name string // "CRC32"
	size int    // bytes of a value
	make func() hash.Hash
	poly uint64 // of a CRC, reflected; 0 for others. CRCs of parts can be joined to that of the whole
}

// algorithms are all of S3's.
func algorithms() []algorithm {
	return []algorithm{
		{"CRC32", 4, func() hash.Hash { return crc32.NewIEEE() }, crc32.IEEE},
		{"CRC32C", 4, func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }, crc32.Castagnoli},
		{"CRC64NVME", 8, func() hash.Hash { return crc64nvme.New() }, 0x9a6c9329ac4bc9b5},
		{"SHA1", 20, sha1.New, 0},
		{"SHA256", 32, sha256.New, 0},
		{"SHA512", 64, sha512.New, 0},
		{"MD5", 16, md5.New, 0},
		{"XXHASH64", 8, func() hash.Hash { return xxhash.New() }, 0},
		{"XXHASH3", 8, func() hash.Hash { return xxh3.New() }, 0},
		{"XXHASH128", 16, func() hash.Hash { return xxh3.New128() }, 0},
	}
}

// algorithmOf finds an algorithm by its name in any case; a zero one for no name.
func algorithmOf(name string) (algorithm, error) {
	if name == "" {
		return algorithm{}, nil
	}
	for _, a := range algorithms() {
		if strings.EqualFold(a.name, name) {
			return a, nil
		}
	}
	return algorithm{}, invalidRequest("Checksum algorithm provided is unsupported: %.40q. Use CRC32, CRC32C, CRC64NVME, SHA1, SHA256, SHA512, MD5, XXHASH64, XXHASH3 or XXHASH128.", name)
}

// header is the lower-case name of the header with its value.
func (a algorithm) header() string { return "x-amz-checksum-" + strings.ToLower(a.name) }

// parse decodes a value from a header, a trailer or XML.
func (a algorithm) parse(value string) ([]byte, error) {
	sum, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(sum) != a.size {
		return nil, invalidRequest("Value for %s header is invalid.", a.header())
	}
	return sum, nil
}

// headerChecksum is the one checksum in the headers of a request; a zero one without any.
func headerChecksum(h http.Header) (algorithm, []byte, error) {
	a, text, err := rawChecksum(h)
	if err != nil || text == "" {
		return a, nil, err
	}
	sum, err := a.parse(text)
	return a, sum, err
}

// rawChecksum is headerChecksum before its value is decoded.
func rawChecksum(h http.Header) (found algorithm, text string, _ error) {
	for name, values := range h {
		rest, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-checksum-")
		if !ok || rest == "algorithm" || rest == "type" || rest == "mode" {
			continue
		}
		if found.name != "" || len(values) != 1 {
			return found, "", invalidRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		a, err := algorithmOf(rest)
		if err != nil || a.name == "" {
			return found, "", invalidRequest("The algorithm type you specified in x-amz-checksum- header is invalid.")
		}
		if found, text = a, values[0]; text == "" {
			return found, "", invalidRequest("Value for %s header is invalid.", a.header())
		}
	}
	return found, text, nil
}

// setChecksum sets the headers of an object's checksum.
func (c *call) setChecksum(sum store.Checksum, parts int) {
	if len(sum.Value) > 0 {
		c.set("x-amz-checksum-"+strings.ToLower(sum.Algorithm), checksumText(sum, parts))
		c.set("x-amz-checksum-type", checksumType(sum))
	}
}

// checksumText is a checksum as S3 writes it: in base64, and with the count of parts if it is that of
// their checksums.
func checksumText(sum store.Checksum, parts int) string {
	text := base64.StdEncoding.EncodeToString(sum.Value)
	if sum.Composite && parts > 0 {
		text += "-" + strconv.Itoa(parts)
	}
	return text
}

func checksumType(sum store.Checksum) string {
	if sum.Composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// uploadChecksum is what an upload announces: its algorithm, and whether the object's checksum will
// be that of the whole, or of its parts' checksums.
func uploadChecksum(h http.Header) (name string, whole bool, _ error) {
	a, err := algorithmOf(h.Get("X-Amz-Checksum-Algorithm"))
	if err != nil {
		return "", false, err
	}
	kind := h.Get("X-Amz-Checksum-Type")
	switch {
	case a.name == "" && kind != "":
		return "", false, invalidRequest("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	case a.name == "", kind == "":
		return a.name, a.name == "CRC64NVME", nil
	case kind == "FULL_OBJECT" && a.poly != 0, kind == "COMPOSITE" && a.name != "CRC64NVME":
		return a.name, kind == "FULL_OBJECT", nil
	case kind == "FULL_OBJECT", kind == "COMPOSITE":
		return "", false, invalidRequest("The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(a.name))
	}
	return "", false, invalidRequest("Value for x-amz-checksum-type header is invalid.")
}

// joinChecksums is the checksum of an object of these parts, of the kind that the upload announced.
func joinChecksums(up store.UploadOptions, parts []store.Part) (store.Checksum, error) {
	a, err := algorithmOf(up.Algorithm)
	if err != nil || a.name == "" {
		return store.Checksum{}, err
	}
	of, joined := a.make(), uint64(0)
	for _, p := range parts {
		if p.Checksum.Algorithm != a.name || len(p.Checksum.Value) != a.size {
			return store.Checksum{}, invalidRequest("The part %d has no %s checksum, which the upload announced.", p.Number, a.name)
		}
		of.Write(p.Checksum.Value)
		if up.FullObject {
			joined = combineCRC(a.poly, a.size*8, joined, bigEndian(p.Checksum.Value), p.Size)
		}
	}
	if !up.FullObject {
		return store.Checksum{Algorithm: a.name, Value: of.Sum(nil), Composite: true}, nil
	}
	value := binary.BigEndian.AppendUint64(nil, joined)
	return store.Checksum{Algorithm: a.name, Value: value[8-a.size:]}, nil
}

func bigEndian(value []byte) (n uint64) {
	for _, b := range value {
		n = n<<8 | uint64(b)
	}
	return n
}

// combineCRC is the CRC of A and B, of those of A and B and the length of B. A CRC that is inverted at
// both ends is linear: the zeros that B adds behind A are a matrix over GF(2), which is squared for
// each bit of the length (zlib's crc32_combine).
func combineCRC(poly uint64, bits int, a, b uint64, length int64) uint64 {
	zero := make([]uint64, bits) // the matrix of one zero bit
	zero[0] = poly
	for i := 1; i < bits; i++ {
		zero[i] = 1 << (i - 1)
	}
	zero = square(square(square(zero))) // of one zero byte
	for ; length > 0; length >>= 1 {
		if length&1 != 0 {
			a = times(zero, a)
		}
		zero = square(zero)
	}
	return a ^ b
}

func times(matrix []uint64, vector uint64) (sum uint64) {
	for i := 0; vector != 0; i, vector = i+1, vector>>1 {
		if vector&1 != 0 {
			sum ^= matrix[i]
		}
	}
	return sum
}

func square(matrix []uint64) []uint64 {
	out := make([]uint64, len(matrix))
	for i, column := range matrix {
		out[i] = times(matrix, column)
	}
	return out
}
