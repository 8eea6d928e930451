package inbound

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/emersion/go-smtp"

	"lodge/mail/guard"
)

const (
	maxCommandBytes = 4 << 10  // of a command line; RFC 5321 §4.5.3.1.4 requires 512
	maxLineBytes    = 64 << 10 // of a line in DATA; RFC 5321 §4.5.3.1.6 requires 1000, some programs send more
)

// wire is a client's connection as go-smtp reads it. A Read returns at most one line, and ends
// where a BDAT chunk ends. So go-smtp has replied to a command before it can read the next, and the
// reply shows how it took the command:
//
//   - a line has a limit everywhere; go-smtp has none between the chunks of a message;
//   - a chunk whose BDAT was refused is skipped; go-smtp would execute it;
//   - a chunk that the client cuts off is an error; go-smtp would accept the message;
//   - after a failed read, QUIT or CloseAfterReply nothing is executed, even if the client has sent
//     it already.
//
// One goroutine at a time may use it; Close and CloseAfterReply may be called from any.
type wire struct {
	*guard.Conn
	in    *bufio.Reader // of maxCommandBytes
	line  []byte        // in in's buffer: what Read returns next
	bytes int           // of the current line of DATA so far

	asked bool  // the last command is DATA
	data  bool  // it was answered with 354, and the message is not yet replied to
	chunk int64 // bytes left of the last BDAT's chunk
	skip  bool  // that BDAT was refused
	last  bool  // nothing more is read: the size of that chunk is unknown

	failed error // of the first Read that failed; all later ones return it
	ended  atomic.Bool
}

func newWire(c *guard.Conn) net.Conn {
	return &wire{Conn: c, in: bufio.NewReaderSize(c, maxCommandBytes)}
}

// NetConn returns the guarded connection beneath.
func (w *wire) NetConn() net.Conn { return w.Conn }

// Read implements io.Reader.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.ended.Load() {
		return 0, io.EOF
	}
	if w.failed == nil {
		n, w.failed = w.read(p)
	}
	return n, w.failed // go-smtp compares it
}

func (w *wire) read(p []byte) (int, error) {
	if len(w.line) == 0 && w.chunk > 0 {
		return w.readChunk(p)
	}
	if len(w.line) == 0 {
		if err := w.readLine(); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.line)
	w.line = w.line[n:]
	return n, nil
}

// readChunk reads of the current chunk, or skips it and reads the line behind it.
func (w *wire) readChunk(p []byte) (int, error) {
	if w.skip {
		_, err := w.in.Discard(int(w.chunk))
		if w.skip, w.chunk = false, 0; err != nil {
			return 0, err
		}
		return w.read(p)
	}
	n, err := w.in.Read(p[:min(int64(len(p)), w.chunk)])
	w.chunk -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// readLine fills w.line with the next line, or with a piece of a long line of DATA.
func (w *wire) readLine() error {
	if w.last {
		return io.EOF
	}
	line, err := w.in.ReadSlice('\n')
	full := errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !full {
		return err
	}
	if w.bytes += len(line); w.bytes > maxLineBytes || full && !w.data {
		return smtp.ErrTooLongLine
	}
	if !full {
		w.bytes = 0
	}
	if w.line = line; !w.data {
		w.command(line)
	}
	return nil
}

// command notes what the reply to a command and the bytes behind it will mean. It takes more for a
// BDAT than go-smtp does, never less.
func (w *wire) command(line []byte) {
	fields := strings.Fields(string(line))
	is := func(verb string) bool { return len(fields) > 0 && strings.EqualFold(fields[0], verb) }
	w.asked = is("DATA")
	if !is("BDAT") {
		return
	}
	if len(fields) > 1 {
		if size, err := strconv.ParseUint(fields[1], 10, 32); err == nil {
			w.chunk = int64(size)
			return
		}
	}
	w.last = true
}

// Write implements io.Writer. A reply before the chunk was read refuses the chunk; go-smtp reads it
// nevertheless when the reply is 552, message too big.
func (w *wire) Write(p []byte) (int, error) {
	w.data = w.asked && bytes.HasPrefix(p, []byte("354"))
	w.asked = false
	w.skip = w.chunk > 0 && !bytes.HasPrefix(p, []byte("552"))
	return w.Conn.Write(p)
}

// CloseAfterReply closes the connection once the reply that is due is written.
func (w *wire) CloseAfterReply() { w.ended.Store(true) }

// Close implements net.Conn.
func (w *wire) Close() error {
	w.ended.Store(true)
	return w.Conn.Close()
}
