package store

import (
	"fmt"
	"strings"
	"time"

	"lodge/gateway"
)

// content is where a body is. Small bodies and lists of small parts have one owner; files and lists
// are counted, so that copies share them.
type content struct {
	kind byte   // 0 for an empty body, kindSmall, kindFile or kindList
	id   uint64 // the rest of its key
	crc  uint64 // CRC64-NVME of a small body
}

// encrypted marks the kind of a content that has more bytes than clients see: extra of them.
const encrypted = 0x80

func (e *encoder) content(c content, extra int64) {
	kind := uint64(c.kind)
	if extra != 0 {
		kind |= encrypted
	}
	e.uint(kind)
	if c.kind != 0 {
		e.uint(c.id)
	}
	if c.kind == kindSmall {
		e.fixed(c.crc)
	}
	if extra != 0 {
		e.int(extra)
	}
}

func (d *decoder) content() (c content, extra int64) {
	kind := d.uint()
	switch kind &^ encrypted {
	case 0:
	case kindSmall:
		c = content{kind: kindSmall, id: d.uint(), crc: d.fixed()}
	case kindFile, kindList:
		c = content{kind: byte(kind &^ encrypted), id: d.uint()}
	default:
		d.fail()
	}
	if kind&encrypted != 0 {
		if extra = d.int(); extra <= 0 || c.kind == 0 {
			d.fail()
		}
	}
	return c, extra
}

func (e *encoder) checksum(c Checksum) {
	e.text(c.Algorithm)
	if c.Algorithm != "" {
		e.bytes(c.Value)
		e.bool(c.Composite)
	}
}

func (d *decoder) checksum() (c Checksum) {
	if c.Algorithm = d.text(); c.Algorithm != "" {
		c.Value, c.Composite = d.bytes(), d.bool()
	}
	return c
}

func (e *encoder) meta(m Meta) {
	e.textMap(m.Header)
	e.textMap(m.Tags)
	e.text(m.Retention.Mode)
	e.time(m.Retention.Until)
	e.bool(m.LegalHold)
	e.bytes(m.Sealed)
	e.text(m.ACL)
}

func (d *decoder) meta() (m Meta) {
	m.Header, m.Tags = d.textMap(), d.textMap()
	m.Retention.Mode, m.Retention.Until = d.text(), d.time()
	m.LegalHold, m.Sealed, m.ACL = d.bool(), d.bytes(), d.text()
	return m
}

// storageClass is the header that a listing shows.
const storageClass = "x-amz-storage-class"

// listed reads of a Meta what a listing has of it, without the rest: the storage class, and tags if they are asked
// for. So a page has as many bytes as its keys need, whatever metadata the objects have.
func (d *decoder) listed(tags bool) (m Meta) {
	m.Header = d.pick(storageClass)
	if tags {
		m.Tags = d.textMap()
	}
	d.b = nil
	return m
}

// version is the record of an Object. The key and what follows from it are not in the record.
type version struct {
	Object
	seq     uint64 // of its write: larger is newer
	null    bool
	content content
	extra   int64  // bytes that encryption has added to Size
	upload  uint64 // that made it, or 0
}

func (v *version) encode() []byte {
	e := newEncoder()
	e.uint(v.seq)
	e.bool(v.null)
	e.bool(v.Deleted)
	e.int(v.Size)
	e.text(v.ETag)
	e.time(v.Modified)
	e.checksum(v.Checksum)
	e.uint(uint64(v.Parts))
	e.content(v.content, v.extra)
	e.uint(v.upload)
	e.meta(v.Meta)
	return e.b
}

func decodeVersion(key Key, b []byte) (*version, error) {
	return decodeVersionWith(key, b, (*decoder).meta)
}

// decodeVersionWith reads the Meta, which is last, by a function of its own.
func decodeVersionWith(key Key, b []byte, meta func(*decoder) Meta) (*version, error) {
	d := newDecoder(b)
	v := &version{seq: d.uint(), null: d.bool()}
	v.Key, v.Deleted, v.Size, v.ETag = key, d.bool(), d.int(), d.text()
	v.Modified, v.Checksum, v.Parts = d.time(), d.checksum(), int(d.uint())
	v.content, v.extra = d.content()
	v.upload, v.Meta = d.uint(), meta(d)
	v.Version = NullVersion
	if !v.null {
		v.Version = versionID(v.seq)
	}
	return v, d.end("an object")
}

// versionID is the version of a write. Newer versions sort first.
func versionID(seq uint64) string { return fmt.Sprintf("%016x", ^seq) }

// uploadID is the name of an upload. Older uploads sort first.
func uploadID(number uint64) string { return versionID(^number) }

// parseUploadID is the reverse of uploadID.
func parseUploadID(id string) (uint64, bool) {
	n, ok := parseID(id)
	return ^n, ok
}

// IsVersion reports whether a version of this or of another store can have that name: 16 letters and digits or more.
func IsVersion(id string) bool {
	other := func(c rune) bool { return c < '0' || c > '9' && c < 'A' || c > 'Z' && c < 'a' || c > 'z' }
	return id == NullVersion || len(id) >= 16 && len(id) <= maxNameBytes && !strings.ContainsFunc(id, other)
}

// parseID is the reverse of versionID.
func parseID(id string) (uint64, bool) {
	if len(id) != 16 {
		return 0, false
	}
	var n uint64
	for i := range len(id) {
		switch c := id[i]; {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return ^n, true
}

func (b *Bucket) encode() []byte {
	e := newEncoder()
	e.uint(b.number)
	e.time(b.Created)
	e.text(string(b.Versioning))
	e.bool(b.Lock)
	config := make(map[string]string, len(b.Config))
	for k, v := range b.Config {
		config[k] = string(v)
	}
	e.textMap(config)
	return e.b
}

// bucket reads all but the configuration, which is last.
func (d *decoder) bucket(vm gateway.ID, name string) Bucket {
	return Bucket{VM: vm, Name: name, number: d.uint(), Created: d.time(), Versioning: Versioning(d.text()), Lock: d.bool()}
}

// decodeBucketHead reads a bucket without its configuration.
func decodeBucketHead(vm gateway.ID, name string, b []byte) (Bucket, error) {
	d := newDecoder(b)
	bucket := d.bucket(vm, name)
	d.b = nil
	return bucket, d.end("a bucket")
}

func decodeBucket(vm gateway.ID, name string, b []byte) (Bucket, error) {
	d := newDecoder(b)
	bucket := d.bucket(vm, name)
	if config := d.textMap(); config != nil {
		bucket.Config = make(map[string][]byte, len(config))
		for k, v := range config {
			bucket.Config[k] = []byte(v)
		}
	}
	return bucket, d.end("a bucket")
}

// part is the record of a Part. Its list has the number too.
type part struct {
	Part
	content content
	extra   int64 // bytes that encryption has added to Size
}

func (p *part) append(e *encoder) {
	e.uint(uint64(p.Number))
	e.int(p.Size)
	e.text(p.ETag)
	e.time(p.Modified)
	e.checksum(p.Checksum)
	e.content(p.content, p.extra)
}

func (d *decoder) part() (p part) {
	p.Number, p.Size, p.ETag = int(d.uint()), d.int(), d.text()
	p.Modified, p.Checksum = d.time(), d.checksum()
	if p.content, p.extra = d.content(); p.Size < 0 || p.Number > maxParts {
		d.fail()
	}
	return p
}

func (p *part) encode() []byte {
	e := newEncoder()
	p.append(e)
	return e.b
}

func decodePart(b []byte) (part, error) {
	d := newDecoder(b)
	p := d.part()
	return p, d.end("a part")
}

func encodeList(parts []part) []byte {
	e := newEncoder()
	e.uint(uint64(len(parts)))
	for i := range parts {
		parts[i].append(e)
	}
	return e.b
}

func decodeList(b []byte) ([]part, error) {
	d := newDecoder(b)
	parts := make([]part, d.count(6))
	var offset int64
	for i := range parts {
		parts[i] = d.part()
		parts[i].Offset = offset
		offset += parts[i].Size
	}
	if offset < 0 {
		d.fail()
	}
	return parts, d.end("a multipart object")
}

func (u *Upload) encode() []byte {
	e := newEncoder()
	e.time(u.Started)
	e.text(u.Algorithm)
	e.bool(u.FullObject)
	e.meta(u.Meta)
	return e.b
}

// startOf reads when an upload began from its record.
func startOf(record []byte) (time.Time, error) {
	d := newDecoder(record)
	started := d.time()
	if d.bad {
		return started, d.end("an upload")
	}
	return started, nil
}

func decodeUpload(key Key, number uint64, b []byte) (Upload, error) {
	return decodeUploadWith(key, number, b, (*decoder).meta)
}

// decodeUploadWith reads the Meta, which is last, by a function of its own.
func decodeUploadWith(key Key, number uint64, b []byte, meta func(*decoder) Meta) (Upload, error) {
	d := newDecoder(b)
	u := Upload{Key: key, ID: uploadID(number), number: number, Started: d.time()}
	u.Algorithm, u.FullObject, u.Meta = d.text(), d.bool(), meta(d)
	return u, d.end("an upload")
}

// file is the record of a large body: what its file must have.
type file struct {
	size int64
	crcs []uint64 // CRC64-NVME of each chunkBytes; none while they are not computed
}

func (f *file) encode() []byte {
	e := newEncoder()
	e.int(f.size)
	e.uint(uint64(len(f.crcs)))
	for _, c := range f.crcs {
		e.fixed(c)
	}
	return e.b
}

func decodeFile(b []byte) (file, error) {
	d := newDecoder(b)
	f := file{size: d.int()}
	f.crcs = make([]uint64, d.count(8))
	for i := range f.crcs {
		f.crcs[i] = d.fixed()
	}
	if chunks := (f.size + chunkBytes - 1) / chunkBytes; f.size < 0 || len(f.crcs) > 0 && chunks != int64(len(f.crcs)) {
		d.fail()
	}
	return f, d.end("a file")
}
