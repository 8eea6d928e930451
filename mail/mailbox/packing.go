package mailbox

import (
	"encoding/binary"
	"sync"
)

// packing is a page of the list as the index has it. Most of a large mailbox is never looked at again, so a page is
// decoded when it is first used; opening a million messages decodes none.
type packing struct {
	n    int
	last uint32 // the UID of the last message
	big  bool   // a body is in big

	mu      sync.Mutex
	packed  []byte  // whole entries of an index that was sound
	entries []Entry // in place of packed, once they are decoded
}

// unpack returns the messages, which are not to be changed.
func (p *packing) unpack() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries == nil {
		p.entries, p.packed = decodePage(p.packed), nil
	}
	return p.entries
}

func (p *packing) appendUIDs(all []uint32) []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		all = append(all, e.UID)
	}
	for b := p.packed; len(b) > 0; b = b[indexEntryBytes:] {
		all = append(all, binary.LittleEndian.Uint32(b))
	}
	return all
}

// encode appends the messages as an index has them.
func (p *packing) encode(buf []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		buf = appendEntry(buf, e)
	}
	return append(buf, p.packed...)
}

// take puts entries of an index behind those that a new state has, and counts them as count does.
func (s *state) take(entries []byte) {
	le := binary.LittleEndian
	used, segment := 0, uint32(0) // messages of the last segment seen: most follow others of it
	for len(entries) > 0 {
		n := min(len(entries), pageEntries*indexEntryBytes)
		p := &packing{n: n / indexEntryBytes, packed: entries[:n:n], last: le.Uint32(entries[n-indexEntryBytes:])}
		for b := p.packed; len(b) > 0; b = b[indexEntryBytes:] {
			s.bytes += int64(le.Uint64(b[32:])) //nolint:gosec // as appendEntry
			s.live += int64(le.Uint64(b[64:]))  //nolint:gosec // as appendEntry
			s.parked += isParked(Flags(b[4]))
			p.big = p.big || b[5] != 0
			if in := le.Uint32(b[48:]); in != segment || used == 0 {
				s.use(segment, used)
				segment, used = in, 0
			}
			used++
		}
		s.list.addPacked(p)
		entries = entries[n:]
	}
	s.use(segment, used)
}
