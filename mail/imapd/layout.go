package imapd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	maxHeaderBytes = 1 << 20   // of a header that is parsed
	maxNests       = 50        // multiparts and messages inside of one message that is parsed
	maxCopyBytes   = 200 << 20 // what parsing one message may copy: a message in a message is copied at each level
)

// layout describes a message before it is parsed. go-imap recurses into MIME parts without a limit,
// and copies each message in a message: hostile nesting would exhaust the stack or the memory of
// the daemon.
type layout struct {
	size       int64
	header     int64 // including the empty line
	multiparts int   // an upper bound
	messages   int   // of type message/*, an upper bound
}

// costly reports whether the message must not be parsed.
func (l layout) costly() bool {
	return l.header > maxHeaderBytes || l.multiparts+l.messages > maxNests || int64(1+l.messages)*l.size > maxCopyBytes
}

// scan finds the end of the header. With all it also reads the body and counts what could be
// nested. It uses 32 KiB.
func scan(r io.ReaderAt, size int64, all bool) (layout, error) {
	l := layout{size: size}
	br := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 32<<10)
	inHeader, lineStart := true, true
	var window []byte // the piece and the end of the one before: a type may be split
	for {
		piece, err := br.ReadSlice('\n')
		if inHeader {
			l.header += int64(len(piece))
			inHeader = !lineStart || len(bytes.TrimRight(piece, "\r\n")) > 0
		}
		lineStart = err == nil
		if all {
			window = l.count(window, piece)
		}
		switch {
		case errors.Is(err, io.EOF), !inHeader && !all:
			return l, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return l, fmt.Errorf("read message: %w", err)
		}
	}
}

// count adds the nested types of piece to l, some of them twice at worst. It returns the bytes to
// pass with the next piece.
func (l *layout) count(before, piece []byte) []byte {
	const multipart, message = "multipart/", "message/"
	window := append(before, bytes.ToLower(piece)...)
	l.multiparts += bytes.Count(window, []byte(multipart))
	l.messages += bytes.Count(window, []byte(message))
	return append(window[:0], window[max(0, len(window)-len(multipart)+1):]...)
}
