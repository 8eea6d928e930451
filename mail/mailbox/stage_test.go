package mailbox

import (
	"errors"
	"io"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// What is written to a staged message can be read at once, while more is written, also when it has
// moved to a file.
func TestStagedReadAt(t *testing.T) {
	s, err := Open(t.TempDir(), new(gatewaytest.Log).Logger())
	gatewaytest.Must(t, err)
	staged, err := s.Stage()
	gatewaytest.Must(t, err)
	defer staged.Remove()
	for _, text := range []string{"Subject: x\r\n", strings.Repeat("x", maxInlineBytes), "\r\nbody\r\n"} {
		_, err := io.WriteString(staged, text)
		gatewaytest.Must(t, err)
		buf := make([]byte, len(text)+1)
		n, err := staged.ReadAt(buf, staged.bytes-int64(len(text)))
		if string(buf[:n]) != text || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}
