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
	maxFormBytes  = 64 << 10 // of all that is sent, the headers of the parts included
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

// formBody is the body of a form. Nobody has proven yet who sends what is before the file, so it is
// limited.
type formBody struct {
	src  io.Reader
	left int // bytes; -1: any number, the file is reached
}

// Read implements io.Reader.
func (b *formBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return b.src.Read(p)
	}
	if b.left == 0 {
		return 0, errFormTooLong()
	}
	n, err := b.src.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// ReadForm reads a form up to its file. What is behind the file is ignored, as S3 does.
func ReadForm(r *http.Request) (*Form, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, errForm("its boundary is missing")
	}
	body := &formBody{r.Body, maxFormBytes}
	parts := multipart.NewReader(body, params["boundary"])
	f := &Form{Fields: map[string]string{}}
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, invalidArgument("POST requires exactly one file upload per request.")
		}
		if err != nil {
			return nil, errFormRead(err)
		}
		name := strings.ToLower(part.FormName())
		if name == "file" {
			f.file, f.name = part, part.FileName()
			body.left = -1
			return f, nil
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, errFormRead(err)
		}
		if len(f.Fields) >= maxFormFields {
			return nil, errFormTooLong()
		}
		if _, twice := f.Fields[name]; twice || name == "" {
			return nil, invalidArgument("The form has the field %.40q twice, or one without a name.", name)
		}
		f.Fields[name] = string(value)
	}
}

// key is the key that the form asks for, which may have the file's name in it. Its length is known
// before it is made: a short field and a long name can make gigabytes.
func (f *Form) key() (string, error) {
	const variable = "${filename}"
	pattern := f.Fields["key"]
	if n := len(pattern) + strings.Count(pattern, variable)*(len(f.name)-len(variable)); n > maxKeyBytes {
		return "", errKeyTooLong(n)
	}
	key := strings.ReplaceAll(pattern, variable, f.name)
	if key == "" {
		return "", invalidArgument("Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.")
	}
	return key, checkKey(key)
}

// errFormRead is the limit of the form, or what else ends its reading.
func errFormRead(err error) error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	return errForm("it cannot be read")
}

func errFormTooLong() error {
	return badRequest("MaxPostPreDataLengthExceeded", "Your POST request fields preceding the upload file were too large: at most %d fields and %d bytes are possible.",
		maxFormFields, maxFormBytes)
}

func errForm(why string) error {
	return badRequest("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data: %s.", why)
}
