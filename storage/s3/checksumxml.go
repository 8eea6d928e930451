package s3

import "lodge/storage/store"

// checksumsXML are the elements of a checksum; one of them is set.
type checksumsXML struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
	ChecksumSHA512    string `xml:",omitempty"`
	ChecksumMD5       string `xml:",omitempty"`
	ChecksumXXHASH64  string `xml:",omitempty"`
	ChecksumXXHASH3   string `xml:",omitempty"`
	ChecksumXXHASH128 string `xml:",omitempty"`
}

// field is the element of an algorithm.
func (x *checksumsXML) field(name string) *string {
	switch name {
	case "CRC32":
		return &x.ChecksumCRC32
	case "CRC32C":
		return &x.ChecksumCRC32C
	case "CRC64NVME":
		return &x.ChecksumCRC64NVME
	case "SHA1":
		return &x.ChecksumSHA1
	case "SHA512":
		return &x.ChecksumSHA512
	case "MD5":
		return &x.ChecksumMD5
	case "XXHASH64":
		return &x.ChecksumXXHASH64
	case "XXHASH3":
		return &x.ChecksumXXHASH3
	case "XXHASH128":
		return &x.ChecksumXXHASH128
	}
	return &x.ChecksumSHA256
}

func checksumsOf(sum store.Checksum, parts int) (x checksumsXML) {
	if len(sum.Value) > 0 {
		*x.field(sum.Algorithm) = checksumText(sum, parts)
	}
	return x
}
