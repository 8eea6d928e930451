package s3

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

// Limits of a form before its file.
const (
	maxFormFields = 100
	maxFormBytes  = 64 << 10
)

// Form is a browser's upload by POST: its fields, and the file behind them.
type Form struct {
	Fields map[string]string // by lower-case name
	file   *multipart.Part
	name   string // of the file
}

// IsForm reports whether a request is a browser's upload, signed in its fields.
func IsForm(r *http.Request) bool {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && r.Method == http.MethodPost && media == "multipart/form-data" && r.Header.Get("Authorization") == ""
}

// ReadForm reads a form up to its file. What is behind the file is ignored, as S3 does.
func ReadForm(r *http.Request) (*Form, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, errForm("its boundary is missing")
	}
	f := &Form{Fields: map[string]string{}}
	for budget := int64(maxFormBytes); ; {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, invalidArgument("POST requires exactly one file upload per request.")
		}
		if err != nil {
			return nil, errForm("it cannot be read")
		}
		name := strings.ToLower(part.FormName())
		if name == "file" {
			f.file, f.name = part, part.FileName()
			return f, nil
		}
		value, err := io.ReadAll(io.LimitReader(part, budget+1))
		if budget -= int64(len(value) + len(name)); err != nil || budget < 0 || len(f.Fields) >= maxFormFields {
			return nil, badRequest("MaxPostPreDataLengthExceeded", "Your POST request fields preceding the upload file were too large: at most %d fields and %d bytes are possible.",
				maxFormFields, maxFormBytes)
		}
		if _, twice := f.Fields[name]; twice || name == "" {
			return nil, invalidArgument("The form has the field %.40q twice, or one without a name.", name)
		}
		f.Fields[name] = string(value)
	}
}

func errForm(why string) error {
	return badRequest("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data: %s.", why)
}
