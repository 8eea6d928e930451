package storage

import (
	"mime"
	"net/http"
	"strings"

	"lodge/gateway"
)

// maxHeaderBytes limits the headers of a request, as S3 does; user metadata counts.
const maxHeaderBytes = 8 << 10

// refuse rejects features that the engine would ignore: a client that asks for encryption, a public
// object or an append must not get a success.
func refuse(r *http.Request, vm gateway.Identity) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		return errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "The method %.20q is not allowed.", r.Method)
	}
	if err := refuseConfiguration(r); err != nil {
		return err
	}
	size := 0
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
		if err := refuseHeader(name, strings.Join(values, ","), vm); err != nil {
			return err
		}
	}
	if size > maxHeaderBytes {
		return errorf(http.StatusBadRequest, "RequestHeaderSectionTooLarge", "The headers come to %d bytes; at most %d are possible.", size, maxHeaderBytes)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && r.Method == http.MethodPost && media == "multipart/form-data" {
		return errNotImplemented("Uploads by an HTML form (POST policies) are not implemented. Use PUT.")
	}
	return nil
}

func refuseHeader(name, value string, vm gateway.Identity) error {
	switch {
	case strings.HasPrefix(name, "X-Amz-Server-Side-Encryption"), strings.HasPrefix(name, "X-Amz-Copy-Source-Server-Side-Encryption"):
		return errNotImplemented("Server-side encryption is not implemented (%s). Encrypt the host's disk, or before you upload.", name)
	case name == "X-Amz-Write-Offset-Bytes":
		return errNotImplemented("Appending to an object is not implemented.")
	case strings.HasPrefix(name, "X-Amz-Object-Lock-"), name == "X-Amz-Bucket-Object-Lock-Enabled" && !strings.EqualFold(value, "false"):
		return errNotImplemented("Object locks are not implemented.")
	case strings.HasPrefix(name, "X-Amz-Grant-"), name == "X-Amz-Acl" && value != "private" && value != "bucket-owner-full-control" && value != "bucket-owner-read":
		return errNoACL()
	case name == "X-Amz-Website-Redirect-Location":
		return errNotImplemented("Websites are not implemented.")
	case strings.HasSuffix(name, "Expected-Bucket-Owner") && value != vm.ID.String():
		return errDenied("The bucket's owner is this VM (%s), not the one expected.", vm.ID)
	}
	return nil
}

// refuseConfiguration rejects settings that would have no effect.
func refuseConfiguration(r *http.Request) error {
	if r.Method != http.MethodPut && r.Method != http.MethodDelete {
		return nil
	}
	q := r.URL.Query()
	for _, name := range []string{"policy", "versioning", "cors", "website", "object-lock", "ownershipControls", "publicAccessBlock", "lifecycle", "encryption", "retention", "legal-hold"} {
		if q.Has(name) {
			return errNotImplemented("The setting %q is not implemented.", name)
		}
	}
	return nil
}
