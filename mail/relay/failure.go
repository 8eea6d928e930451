package relay

import (
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-smtp"
)

// failure is why a recipient has not got a message.
type failure struct {
	permanent bool   // a later attempt has no chance
	status    string // RFC 3463
	host      string // that replied so; empty: this one
	text      string // printable ASCII of maxTextBytes at most; of a remote, its reply
	reply     bool   // text is a reply of SMTP
	maybe     bool   // the message was sent, and the reply is lost
}

// maxTextBytes of a reply are kept.
const maxTextBytes = 500

func (f *failure) Error() string {
	if f.host == "" {
		return f.text
	}
	return f.host + ": " + f.text
}

func permanent(status, format string, args ...any) *failure {
	return &failure{permanent: true, status: status, text: clean(fmt.Sprintf(format, args...))}
}

func temporary(status, format string, args ...any) *failure {
	return &failure{status: status, text: clean(fmt.Sprintf(format, args...))}
}

// failureOf reads an error of the client. One that is no reply means that the connection is of no use any
// more; broken is true then, and after a 421.
func failureOf(host string, err error) (f *failure, broken bool) {
	e, ok := errors.AsType[*smtp.SMTPError](err)
	if !ok {
		f = temporary("4.4.2", "%v", err)
		f.host = host
		return f, true
	}
	f = &failure{permanent: e.Code >= 500 && e.Code < 600, host: host, reply: true}
	class, enhanced := 4, e.EnhancedCode
	if f.permanent {
		class = 5
	}
	if enhanced[0] != class || enhanced[1] < 0 || enhanced[1] > 999 || enhanced[2] < 0 || enhanced[2] > 999 {
		enhanced = smtp.EnhancedCode{class, 0, 0}
	}
	f.status = fmt.Sprintf("%d.%d.%d", enhanced[0], enhanced[1], enhanced[2])
	f.text = clean(fmt.Sprintf("%d %s %s", e.Code, f.status, e.Message))
	return f, e.Code == 421
}

// clean makes one line of printable ASCII.
func clean(text string) string {
	text = text[:min(len(text), 4*maxTextBytes)]
	text = strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t' || c == '\r':
			return ' '
		case c < ' ' || c > '~':
			return '?'
		}
		return c
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return text[:min(len(text), maxTextBytes)]
}
