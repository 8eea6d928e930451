package storage

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
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

func errXML(format string, args ...any) error {
	return errorf(http.StatusBadRequest, "MalformedXML", format, args...)
}
