package store

import (
	"io"
	"time"

	"lodge/gateway"
)

// Versioning is a bucket's state of versioning. A bucket never returns to Unversioned.
type Versioning string

// The states of versioning, as S3 spells them.
const (
	Unversioned Versioning = ""
	Enabled     Versioning = "Enabled"
	Suspended   Versioning = "Suspended"
)

// Bucket is one bucket of a VM.
type Bucket struct {
	VM         gateway.ID
	Name       string
	Created    time.Time
	Versioning Versioning
	Lock       bool              // object lock was enabled at creation, and versioning with it
	Config     map[string][]byte // the stored document of a sub-resource, such as "cors", "lifecycle", "policy"

	number uint64
}

// Key names an object. Name is opaque: 1 to 1,024 bytes without NUL. "x", "x/", "x/y", "//" and ".."
// are different keys.
type Key struct {
	VM           gateway.ID
	Bucket, Name string
}

// NullVersion is the version of an object written while its bucket had no versioning, or had it
// suspended.
const NullVersion = "null"

// Meta is what a client sets at a write.
type Meta struct {
	Header    map[string]string // by lower-case name: content-type, x-amz-meta-*, x-amz-storage-class
	Tags      map[string]string
	Retention Retention
	LegalHold bool
	Sealed    []byte // how the protocol layer has encrypted the body, and Write.Plain is set; opaque here
	ACL       string // the canned ACL; opaque here
}

// Retention keeps a version from removal until a time. Mode is "", GOVERNANCE or COMPLIANCE.
type Retention struct {
	Mode  string
	Until time.Time
}

// The modes of Retention, as S3 spells them. A GOVERNANCE retention yields to a caller's bypass.
const (
	Governance = "GOVERNANCE"
	Compliance = "COMPLIANCE"
)

// Checksum is one of S3's, of the body before the protocol layer encrypted it. The store keeps it and
// never computes one.
type Checksum struct {
	Algorithm string // "", CRC32, CRC32C, CRC64NVME, SHA1, SHA256
	Value     []byte // raw bytes
	Composite bool   // it is of the parts' checksums
}

// Object is one version of an object, without its body.
type Object struct {
	Key      Key
	Version  string // NullVersion, or 16 characters that sort newest first
	Latest   bool
	Deleted  bool  // it is a delete marker
	Size     int64 // of the body as clients see it: before the protocol layer encrypted it
	ETag     string
	Modified time.Time
	Checksum Checksum
	Parts    int // the count of parts of a multipart object; PartsOf has them
	Meta
}

// Part is one part of an upload or of a multipart object.
type Part struct {
	Number   int   // 1 to 10,000
	Offset   int64 // in the multipart object, as clients see it; 0 in an upload
	Size     int64 // as clients see it
	ETag     string
	Modified time.Time
	Checksum Checksum
}

// Condition is checked at the commit, under the key's lock, against the latest version. A delete
// marker counts as no object. The zero value is always true.
type Condition struct {
	IfMatch     string    // an ETag, or "*" for any object; without an object ErrNoKey, else ErrPrecondition
	IfNoneMatch string    // an ETag, or "*" for none at all
	IfSize      *int64    // the size
	IfModified  time.Time // the time of the last change, to the second
}

// Write is a body on its way into the store.
type Write struct {
	// Body is read to io.EOF before anything is visible; any other error ends the write and is
	// returned, so a reader that verifies what it reads needs no other way to refuse.
	Body     io.Reader
	Size     int64 // of Body; -1 when it is not known. Another count of bytes is ErrSize.
	Meta     Meta
	MD5      []byte          // nil, or what the body must have: else ErrDigest
	ETag     func() string   // nil for the body's MD5 in hex; called after io.EOF
	Plain    func() int64    // nil, or how many bytes clients see of a Body that is encrypted; called after io.EOF
	Checksum func() Checksum // nil, or the verified checksum to record; called after io.EOF
	If       Condition
	Event    string // CreatedByPut unless set
}

// CopyOptions is what a copy has other than the body.
type CopyOptions struct {
	Meta     func(source Object) (Meta, error) // nil keeps the source's headers, tags and seal
	Checksum func(source Object) Checksum      // nil keeps the source's
	IfSource Condition                         // of the source as it is read; it fails with ErrPrecondition
	If       Condition                         // of the destination
}

// Deletion names what one element of DeleteAll deletes.
type Deletion struct {
	Name, Version string
	If            Condition
	Older         bool // only if the version is not the latest: else ErrPrecondition
	Bypass        bool // GOVERNANCE retention does not hold
	Expired       bool // by the bucket's lifecycle rules: the event has another name
}

// Deleted is the result of one Deletion. Object is zero when there was nothing to delete.
type Deleted struct {
	Object Object
	Err    error
}

// Query selects a page of a listing. Order is that of bytes; of one key, newest version first.
type Query struct {
	VM                gateway.ID
	Bucket            string
	Prefix, Delimiter string
	After             string // the last key or prefix of the page before; exclusive
	From              string // the first possible key; inclusive
	AfterVersion      string // with After: go on within that key, after this version or upload
	Max               int    // of objects and prefixes together; at most 1,000
	Most              int    // of what Weigh returns for the names of a page; 0 is no limit
	Weigh             func(name string) int
	Versions          bool // older versions and delete markers too
	Tags              bool // objects have their tags
}

// Page is a page of a listing.
type Page struct {
	Objects     []Object
	Prefixes    []string
	Next        string // After of the next page: the last key or prefix
	NextVersion string // AfterVersion of the next page
	More        bool
}

// Upload is a multipart upload in progress.
type Upload struct {
	Key     Key
	ID      string
	Started time.Time
	UploadOptions

	number uint64
}

// UploadOptions is what a multipart upload is begun with.
type UploadOptions struct {
	Meta       Meta
	Algorithm  string // of the checksum of each part, or ""
	FullObject bool   // the object's checksum is of its whole body, not a composite
}

// UploadPage is a page of uploads.
type UploadPage struct {
	Uploads    []Upload
	Prefixes   []string
	Next       string
	NextUpload string // AfterVersion of the next page
	More       bool
}

// PartPage is a page of parts.
type PartPage struct {
	Parts []Part
	Next  int // the last number
	More  bool
}

// CompletedPart is a part as the client lists it at the end. A nil checksum is not compared.
type CompletedPart struct {
	Number   int
	ETag     string
	Checksum []byte
}

// Completion is what a completed upload must be.
type Completion struct {
	Size     *int64                               // nil, or what the whole must have: else ErrSize
	Checksum func(parts []Part) (Checksum, error) // nil, or computes the object's from its parts'
	If       Condition
}

// Usage is what is stored: bodies as clients see them (a copy counts like its source), older versions
// and the parts of uploads included. A quota is compared with Charged, and of a VM with Held besides.
type Usage struct {
	Bytes    int64 // of all versions
	Objects  int64 // versions and delete markers
	Pending  int64 // bytes in parts of uploads; not in Bytes
	Uploads  int64 // in progress
	Overhead int64 // bytes that records take beyond 1 KiB for each of Objects; not in Bytes
	Held     int64 // bytes that only snapshots hold, of a VM; not in Bytes
	Buckets  map[string]Usage
}

// Limits bounds what a VM and each of its buckets may store, in bytes; 0 is no limit.
type Limits struct {
	VM, Bucket int64
}

// Damage is one thing that Check has found.
type Damage struct {
	VM     gateway.ID
	Bucket string // "" when it is not known
	Name   string // the object's key
	Blob   string // the file, relative to the store's directory
	Err    error
}

// CopyPartOptions is what a copied part has other than its bytes.
type CopyPartOptions struct {
	IfSource Condition                 // of the source as it is read; it fails with ErrPrecondition
	Reader   func(io.Reader) io.Reader // nil, or what reads the bytes on their way: they are copied
	Checksum func() Checksum           // with Reader: the checksum to record
}
