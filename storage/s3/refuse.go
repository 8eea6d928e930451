package s3

import (
	"net/http"
	"strings"
)

// maxHeaderBytes limits the headers of a request, as S3 does; user metadata counts.
const maxHeaderBytes = 8 << 10

// CheckHeaders refuses headers that are too long.
func CheckHeaders(h http.Header) error {
	size := 0
	for name, values := range h {
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	if size > maxHeaderBytes {
		return badRequest("RequestHeaderSectionTooLarge", "The headers come to %d bytes; at most %d are possible.", size, maxHeaderBytes)
	}
	return nil
}

// refuse rejects features that no verb here has: a client that asks for encryption, a public object
// or an append must not get a success.
func (c *call) refuse() error {
	if err := CheckHeaders(c.r.Header); err != nil {
		return err
	}
	for name, values := range c.r.Header {
		if err := c.refuseHeader(name, strings.Join(values, ",")); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) refuseHeader(name, value string) error {
	switch {
	case strings.HasPrefix(name, sseHeader), strings.HasPrefix(name, sourceHeader):
		return c.refuseEncryption(name)
	case name == "X-Amz-Write-Offset-Bytes":
		return notImplemented("Appending to an object is not implemented.")
	case name == "X-Amz-Mfa":
		return notImplemented("MFA delete is not implemented.")
	case name == "X-Amz-Rename-Source":
		return notImplemented("Renaming an object is not implemented. Copy it, and delete the old one.")
	case strings.HasPrefix(name, headerOfGrant), name == "X-Amz-Acl":
		return c.refuseGrant(name)
	case name == "X-Amz-Expected-Bucket-Owner" && value != c.VM.ID.String():
		return denied("The bucket's owner is this VM (%s), not the one expected.", c.VM.ID)
	}
	return nil
}
