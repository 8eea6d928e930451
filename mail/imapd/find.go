package imapd

import (
	"context"

	"github.com/emersion/go-imap/v2"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// Find searches a mailbox as SEARCH does, for others than IMAP clients: it returns the newest messages that fit and
// that also pass, at most limit of them. One that cannot be read fits nothing. It reads as much as SEARCH does; then,
// and when ctx ends, it fails with KindUnavailable.
func (s *Server) Find(ctx context.Context, box *mailbox.Box, want *imap.SearchCriteria, pass func(mailbox.Entry) bool, limit int) ([]mailbox.Entry, error) {
	if keys(want) > maxKeys {
		return nil, gateway.Invalid("more than %d terms", maxKeys).WithHint("Search for fewer words.")
	}
	left := &budget{maxSearched}
	look := newFinder(left)
	var found []mailbox.Entry
	for e := range box.Snapshot().Entries.Backward() {
		if len(found) == limit {
			break
		}
		if ctx.Err() != nil || left.spent() {
			return nil, gateway.Errorf(gateway.KindUnavailable, "the search takes too long").WithHint("Search in fewer messages, such as since:7d.")
		}
		if !pass(e) {
			continue
		}
		c := candidate{selected: selected{Entry: e}, session: &session{server: s, box: box}, finder: look}
		fits, err := c.fits(want)
		c.close()
		if err != nil && !left.spent() && gateway.KindOf(err) != gateway.KindNotFound {
			s.config.Logger.Warn("message not searched", "queue_id", e.QueueID, "err", err)
		}
		if fits && err == nil {
			found = append(found, e)
		}
	}
	if left.spent() {
		return nil, gateway.Errorf(gateway.KindUnavailable, "the search takes too long").WithHint("Search in fewer messages, such as since:7d.")
	}
	return found, nil
}
