package smtpd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// bdat runs BDAT (RFC 3030). However it is refused, its chunk is read before the reply, or the session
// ends: it is never run as commands.
func (s *session) bdat(ctx context.Context, args string, whole bool) Reply {
	number, flag := cutWord(args)
	size, err := strconv.ParseInt(number, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || strings.Trim(number, "0123456789") != "" {
		s.ended = true
		s.reset(errReset)
		return replySyntax("BDAT size [LAST]")
	}
	if size > 2*s.server.config.MaxMessageBytes {
		return s.broken(errExcessive)
	}
	last := strings.EqualFold(flag, "LAST")
	switch {
	case !whole || flag != "" && !last:
		return s.skipChunk(size, replySyntax("BDAT size [LAST]"))
	case s.body == nil:
		if refusal := s.begin(ctx); refusal.Code != 0 {
			return s.skipChunk(size, refusal)
		}
	}
	if err := s.readChunk(size); err != nil {
		return s.broken(err)
	}
	if last || s.body.fault != nil {
		return s.commit()
	}
	return Reply{250, "2.0.0", fmt.Sprintf("%d octets received", size)}
}

// skipChunk reads a chunk that is refused. The transaction ends: without this chunk its message would
// have a gap.
func (s *session) skipChunk(size int64, refusal Reply) Reply {
	s.reset(errReset)
	s.conn.Begin(s.server.config.Limits.Data)
	defer s.conn.End()
	if err := s.in.skip(size); err != nil {
		return s.broken(err)
	}
	return refusal
}

func (s *session) readChunk(size int64) error {
	for size > 0 {
		p, err := s.in.piece(int(min(size, bufferBytes)))
		if err != nil {
			return err
		}
		size -= int64(len(p))
		s.body.add(p)
		if s.body.excessive() {
			return errExcessive
		}
	}
	return nil
}
