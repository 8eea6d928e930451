package submit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/mail"
	"strconv"
	"time"

	"lodge/gateway"
	"lodge/mail/smtpd"
)

const (
	maxPosts      = 64 // at once
	maxPostsPerVM = 8
	maxLetter     = 1 << 20 // bytes of JSON
	maxRecipients = 100     // as smtpd has it
	maxLineBytes  = 64 << 10
	postTime      = 10 * time.Minute // for a request to come in
)

// Accepted is the answer to a message that is safe on disk.
type Accepted struct {
	ID string `json:"id"` // queue id
}

// Refusal is the answer to a message that is not sent to anybody.
type Refusal struct {
	Error string `json:"error"`          // what is wrong, and with which recipient
	Code  int    `json:"code,omitempty"` // the reply that SMTP has for it, such as 550
}

// httpError is an error that has a status of HTTP's alone.
type httpError struct {
	status int
	text   string
}

// Error implements error.
func (e httpError) Error() string { return e.text }

func invalid(format string, args ...any) error {
	return httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers POST /lodge/v1/mail: a Letter in JSON, or a message (message/rfc822) whose recipients are
// those of To, Cc and Bcc. The request's context has its VM (gateway.WithVM); whoever calls this has checked
// that no web page has made the request. All recipients get the message, or none.
func (p *Policy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(postTime)) // where it is not supported, the tap's limits remain
	id, err := p.post(w, r)
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	answer(w, http.StatusAccepted, Accepted{id})
}

func (p *Policy) post(w http.ResponseWriter, r *http.Request) (queueID string, err error) {
	client := smtpd.Client{VM: gateway.VMFrom(r.Context())}
	m, err := p.vm(client)
	if err != nil {
		return "", err
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return "", httpError{http.StatusMethodNotAllowed, "use POST"}
	}
	leave, ok := p.posts.Enter(m.ID)
	if !ok {
		return "", httpError{http.StatusTooManyRequests, "too many requests at once, try again later"}
	}
	defer leave()
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	switch kind {
	case "application/json":
		return p.postLetter(m, http.MaxBytesReader(w, r.Body, maxLetter))
	case "message/rfc822":
		return p.postMessage(m, http.MaxBytesReader(w, r.Body, p.config.MaxMessageBytes))
	}
	return "", httpError{http.StatusUnsupportedMediaType, "the Content-Type must be application/json or message/rfc822"}
}

// postLetter sends a Letter.
func (p *Policy) postLetter(m gateway.VM, body io.Reader) (string, error) {
	var l Letter
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&l)
	if err == nil && d.More() {
		err = errors.New("there is more behind it")
	}
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return "", httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request is above %d KiB; send a larger message, or one with attachments, as message/rfc822", maxLetter>>10)}
	case err != nil:
		return "", invalid("the request is not as documented: %v", err)
	}
	text, to, err := l.compose(p.host(m), m.Name)
	if err != nil {
		return "", err
	}
	from, err := p.author(m, fields(headerOf(text)))
	if err != nil {
		return "", err
	}
	return p.send(m, from, to, bytes.NewReader(text))
}

// postMessage sends a message as it is. Its line ends may be LF or CRLF.
func (p *Policy) postMessage(m gateway.VM, body io.Reader) (string, error) {
	lines := &lineReader{in: bufio.NewReaderSize(body, maxLineBytes)}
	var split splitter
	var rest []byte
	for !split.done {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			rest = split.end()
			break
		}
		if err == nil {
			rest, err = split.write(line)
		}
		if err != nil {
			return "", err
		}
	}
	all := fields(split.text)
	from, err := p.author(m, all)
	if err != nil {
		return "", err
	}
	var to []*mail.Address
	for _, f := range all {
		if f.name != "to" && f.name != "cc" && f.name != "bcc" || unfold(f.value()) == "" {
			continue
		}
		list, err := parseAddresses(unfold(f.value()))
		if err != nil {
			return "", invalid("the header %s cannot be read: %v", f.name, err)
		}
		to = append(to, list...)
	}
	head := append(split.text, "\r\n"...)
	return p.send(m, from, to, io.MultiReader(bytes.NewReader(head), bytes.NewReader(rest), lines))
}

// author returns the envelope's sender: the one in Sender, else the first in From; without these
// mail@<vm>.<domain>. Whether it is the VM's is decided later.
func (p *Policy) author(m gateway.VM, all []field) (smtpd.Path, error) {
	found := map[string]string{}
	for _, f := range all {
		if value := unfold(f.value()); value != "" && found[f.name] == "" {
			found[f.name] = value
		}
	}
	for _, name := range []string{"sender", "from"} {
		if found[name] == "" {
			continue
		}
		text, err := p.authors(m, name, found[name])
		if err != nil {
			return smtpd.Path{}, err
		}
		list, err := parseAddresses(unfold(text))
		if err != nil || len(list) == 0 {
			return smtpd.Path{}, invalid("the header %s cannot be read", name)
		}
		path, _ := parsePath(list[0].Address) // authors has read it
		return path, nil
	}
	return smtpd.Path{Local: "mail", Domain: p.host(m)}, nil
}

// send takes the message through the same decisions as SMTP.
func (p *Policy) send(m gateway.VM, from smtpd.Path, to []*mail.Address, text io.Reader) (string, error) {
	switch {
	case len(to) == 0:
		return "", invalid("there is no recipient")
	case len(to) > maxRecipients:
		return "", invalid("%d recipients; at most %d are possible, send the rest in another message", len(to), maxRecipients)
	}
	if err := p.rates.message(m.ID, p.now()); err != nil {
		return "", err
	}
	e := smtpd.Envelope{From: from, UTF8: true}
	for _, one := range to {
		path, ok := parsePath(one.Address)
		if !ok {
			return "", invalid("not a mail address: %.200q", one.Address)
		}
		vm, err := p.recipient(m, from, p.complete(m, path), e)
		if err != nil {
			p.refused(m, from, path.String(), err)
			return "", fmt.Errorf("%s: %w", path, err)
		}
		e.To = append(e.To, smtpd.Recipient{Path: path, VM: vm})
	}
	return p.store(m, e, text)
}

func (p *Policy) store(m gateway.VM, e smtpd.Envelope, text io.Reader) (queueID string, err error) {
	msg, err := p.begin(m, "HTTP", m.Name, e)
	if err != nil {
		return "", err
	}
	out := bufio.NewWriterSize(msg, 32<<10) // text comes by lines
	size, err := io.Copy(out, text)
	if err == nil {
		err = out.Flush()
	}
	switch {
	case err != nil:
	case size > p.config.MaxMessageBytes: // with CRLF it has grown
		err = smtpd.Reply{Code: 552, Status: "5.3.4", Text: "Message size exceeds fixed limit"}
	default:
		queueID, err = msg.Commit()
	}
	if err == nil {
		return queueID, nil
	}
	msg.Abort(err)
	return "", err
}

// lineReader gives a message line by line, each with CRLF.
type lineReader struct {
	in   *bufio.Reader
	left []byte // of a line, for Read
}

// next returns the next line; it is valid until the next call. What SMTP refuses is refused.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, invalid("the message has a line above %d KiB", maxLineBytes>>10)
	case err != nil && (!errors.Is(err, io.EOF) || len(line) == 0):
		return nil, err
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, invalid("the message has a CR that ends no line")
	}
	return append(line[:len(line):len(line)], "\r\n"...), nil
}

// Read implements io.Reader.
func (l *lineReader) Read(p []byte) (n int, err error) {
	if len(l.left) == 0 {
		if l.left, err = l.next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

// refuse answers an error. Only errors that are meant for the VM have their text in it.
func (p *Policy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	reply := smtpd.ReplyTo(err)
	out := Refusal{Error: err.Error(), Code: reply.Code}
	status := statusOf(reply)
	if known, ok := errors.AsType[httpError](err); ok {
		status, out.Code = known.status, 0
	} else if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		status, out = http.StatusRequestEntityTooLarge, Refusal{Error: fmt.Sprintf("the message is above %d bytes", p.config.MaxMessageBytes)}
	} else if _, ok := errors.AsType[smtpd.Reply](err); !ok {
		out.Error = reply.Text // the cause is in the log
	}
	if busy, ok := errors.AsType[errTooMany](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(busy.wait.Seconds())))
	}
	p.config.Logger.Debug("message of a VM refused", "vm", gateway.VMFrom(r.Context()).Name, "status", status, "err", err)
	answer(w, status, out)
}

// statusOf is the table from replies of SMTP to statuses of HTTP.
func statusOf(r smtpd.Reply) int {
	switch {
	case r.Code == 450:
		return http.StatusTooManyRequests
	case r.Status == "4.3.1":
		return http.StatusInsufficientStorage
	case r.Code < 500:
		return http.StatusServiceUnavailable
	case r.Code == 552:
		return http.StatusRequestEntityTooLarge
	case r.Status == "5.7.1":
		return http.StatusForbidden
	}
	return http.StatusUnprocessableEntity
}

// answer writes v as JSON. A write error means that the guest has closed the connection.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
