package s3

import (
	"net/http"
	"strconv"
	"strings"

	"lodge/storage/store"
)

// span is a part of a body.
type span struct{ offset, length int64 }

// parseRange parses a Range header for a body of size bytes (RFC 9110, section 14.2). ok is false if
// the header is to be ignored: it is malformed, or has several ranges. An error means that the range
// is behind the end.
func parseRange(header string, size int64) (_ span, ok bool, _ error) {
	text, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, isRange := strings.Cut(strings.TrimSpace(text), "-")
	if !isBytes || !isRange || strings.Contains(text, ",") {
		return span{}, false, nil
	}
	if first == "" {
		n, ok := digits(last)
		switch {
		case !ok:
			return span{}, false, nil
		case n == 0 || size == 0:
			return span{}, false, errRange()
		}
		n = min(n, size)
		return span{size - n, n}, true, nil
	}
	begin, ok := digits(first)
	if !ok {
		return span{}, false, nil
	}
	end := size - 1
	if last != "" {
		n, ok := digits(last)
		if !ok || n < begin {
			return span{}, false, nil
		}
		end = min(end, n)
	}
	if begin >= size {
		return span{}, false, errRange()
	}
	return span{begin, end - begin + 1}, true, nil
}

// digits parses a number of at most 18 digits and nothing else.
func digits(text string) (int64, bool) {
	if len(text) == 0 || len(text) > 18 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

func errRange() error {
	return Errorf(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range cannot be satisfied.")
}

// parseCopyRange parses x-amz-copy-source-range, which is strict: bytes=first-last, inside size.
func parseCopyRange(header string, size int64) (span, error) {
	if header == "" {
		return span{0, size}, nil
	}
	text, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, _ := strings.Cut(text, "-")
	begin, ok := digits(first)
	end, okEnd := digits(last)
	if !isBytes || !ok || !okEnd || begin > end {
		return span{}, invalidArgument("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy.")
	}
	if end >= size {
		return span{}, invalidArgument("Range specified is not valid for source object of size: %d", size)
	}
	return span{begin, end - begin + 1}, nil
}

// partSpan is where a part of an object is, and that part's checksum. An object that was not uploaded
// in parts is its own part 1.
func (c *call) partSpan(o store.Object, text string) (span, store.Checksum, error) {
	number, ok := digits(text)
	if !ok || number < 1 || number > maxParts {
		return span{}, store.Checksum{}, invalidArgument("Part number must be an integer between 1 and %d, inclusive.", maxParts)
	}
	if o.Parts == 0 && number == 1 {
		return span{0, o.Size}, o.Checksum, nil
	}
	if o.Parts > 0 {
		page, err := c.Store.PartsOf(o.Key, o.Version, int(number-1), 1)
		if err != nil {
			return span{}, store.Checksum{}, err
		}
		if len(page.Parts) > 0 && int64(page.Parts[0].Number) == number {
			return span{page.Parts[0].Offset, page.Parts[0].Size}, page.Parts[0].Checksum, nil
		}
	}
	return span{}, store.Checksum{}, Errorf(http.StatusRequestedRangeNotSatisfiable, "InvalidPartNumber", "The requested partnumber is not satisfiable.")
}
