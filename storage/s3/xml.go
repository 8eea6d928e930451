package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits of the XML in a request. AWS has the same for keys and parts.
const (
	maxKeys     = 1000   // of one DeleteObjects
	maxParts    = 10_000 // of one CompleteMultipartUpload
	maxXMLDepth = 8
	itemParts   = 16 // elements of one key or part: names, numbers, checksums
)

// readXML reads a body that lists at most so many items, keys or parts. It stops at the first thing
// that is too much, since decoding takes far more time and memory than sending.
func readXML(body io.Reader, items int) ([]byte, error) {
	var all bytes.Buffer
	tokens := xml.NewDecoder(io.TeeReader(body, &all))
	depth, listed, elements := 0, 0, 0
	for {
		token, err := tokens.RawToken()
		switch {
		case errors.Is(err, io.EOF):
			return all.Bytes(), nil
		case err != nil:
			return nil, errXML("The body is not well-formed XML.")
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			elements++
			if depth == 2 && (t.Name.Local == "Object" || t.Name.Local == "Part") {
				listed++
			}
		case xml.EndElement:
			depth--
		}
		switch {
		case depth > maxXMLDepth:
			return nil, errXML("The XML has elements more than %d deep.", maxXMLDepth)
		case listed > items || elements > (items+1)*itemParts: // the root has settings, too
			return nil, errXML("The XML lists more than %d items.", items)
		}
	}
}

func errXML(format string, args ...any) error { return badRequest("MalformedXML", format, args...) }

// Limits of the documents in a request.
const (
	maxDocument = 256 << 10 // settings, tags
	maxList     = 8 << 20   // keys to delete, parts
	maxItems    = maxKeys   // of a document that is no list
)

// decode reads the body of the call into v, whose XML lists at most so many items.
func (c *call) decode(v any, limit int64, items int) error {
	text, err := c.document(limit, func(r io.Reader) ([]byte, error) { return readXML(r, items) })
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(text, v); err != nil {
		return errXML("The XML you provided was not well-formed or did not validate against our published schema.")
	}
	return nil
}

// decodePlain is decode for a request whose checksum headers are about an object, not about its body.
func (c *call) decodePlain(v any, limit int64, items int) error {
	plain := *c
	plain.r = c.r.Clone(c.r.Context())
	for name := range c.r.Header {
		if strings.HasPrefix(name, "X-Amz-Checksum-") || name == "X-Amz-Sdk-Checksum-Algorithm" {
			plain.r.Header.Del(name)
		}
	}
	return plain.decode(v, limit, items)
}

// reply answers with a document.
func (c *call) reply(v any) error {
	text, err := xml.Marshal(v)
	if err != nil {
		return fmt.Errorf("marshal answer: %w", err)
	}
	text = append([]byte(xml.Header), text...)
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if _, err := c.w.Write(text); err != nil {
		panic(http.ErrAbortHandler) // an incomplete answer must not look complete
	}
	return nil
}

// timestamp is a time as S3's XML has it.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// owner is the VM as the owner of all that it has.
type owner struct {
	ID          string
	DisplayName string
}

// owner is nil for who is anonymous: the VM's id is not for everyone.
func (c *call) owner() *owner {
	if c.Anonymous {
		return nil
	}
	return &owner{c.VM.ID.String(), c.VM.Name}
}
