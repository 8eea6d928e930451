package mailbox

import (
	"cmp"
	"iter"
	"slices"
	"sort"
)

// pageEntries is the length of a page that is full. One that messages were inserted into may be twice as
// long, and one that messages were removed from is shorter.
const pageEntries = 256

// List is messages by UID, read only. It is in pages, which lists share: a list that a change makes has new
// pages only where the change is.
type List struct {
	pages []Page
	n     int
}

// Page is a part of a List, never empty. Pages of one mailbox that have an ID and a length in common are the same,
// unless the ID is 0.
type Page struct {
	ID      uint64
	entries []Entry  // what follows in its array may be another list's
	packed  *packing // in place of entries: the page is as it was in the index
}

// Entries returns the messages, which are not to be changed.
func (p Page) Entries() []Entry {
	if p.packed != nil {
		return p.packed.unpack()
	}
	return p.entries
}

// Len is the number of messages.
func (p Page) Len() int {
	if p.packed != nil {
		return p.packed.n
	}
	return len(p.entries)
}

// last is the UID of the last message.
func (p Page) last() uint32 {
	if p.packed != nil {
		return p.packed.last
	}
	return p.entries[len(p.entries)-1].UID
}

// AppendUIDs appends the UIDs of the messages to all.
func (p Page) AppendUIDs(all []uint32) []uint32 {
	if p.packed != nil {
		return p.packed.appendUIDs(all)
	}
	for _, e := range p.entries {
		all = append(all, e.UID)
	}
	return all
}

// encode appends the messages as an index has them.
func (p Page) encode(buf []byte) []byte {
	if p.packed != nil {
		return p.packed.encode(buf)
	}
	for _, e := range p.entries {
		buf = appendEntry(buf, e)
	}
	return buf
}

// NewList returns a list of these entries, which are by UID.
func NewList(entries ...Entry) List {
	if len(entries) == 0 {
		return List{}
	}
	return List{pages: []Page{{entries: entries}}, n: len(entries)}
}

// Len is the number of messages.
func (l List) Len() int { return l.n }

// Pages returns the pages, by UID.
func (l List) Pages() []Page { return l.pages }

// All is the messages by UID, with their positions.
func (l List) All() iter.Seq2[int, Entry] {
	return func(yield func(int, Entry) bool) {
		n := 0
		for _, p := range l.pages {
			for _, e := range p.Entries() {
				if !yield(n, e) {
					return
				}
				n++
			}
		}
	}
}

// Backward is the messages by UID, the last one first.
func (l List) Backward() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, p := range slices.Backward(l.pages) {
			for _, e := range slices.Backward(p.Entries()) {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Find returns the message with a UID.
func (l List) Find(uid uint32) (Entry, bool) {
	e, ok := l.next(uid)
	return e, ok && e.UID == uid
}

// next returns the first message with at least uid.
func (l List) next(uid uint32) (Entry, bool) {
	page, i := l.search(uid)
	if page == len(l.pages) {
		return Entry{}, false
	}
	return l.pages[page].Entries()[i], true
}

// search returns the place of the first message with at least uid: its page, and where it is in that. If
// there is none, the page is behind the last one.
func (l List) search(uid uint32) (page, i int) {
	page = sort.Search(len(l.pages), func(i int) bool {
		return l.pages[i].last() >= uid
	})
	if page < len(l.pages) {
		i, _ = slices.BinarySearchFunc(l.pages[page].Entries(), uid, func(e Entry, uid uint32) int { return cmp.Compare(e.UID, uid) })
	}
	return page, i
}

// editor is a List that is changed in place where no other list sees it. New messages go behind those of
// a page that lists share; for any other change it copies that page.
type editor struct {
	List
	lastID   uint64              // of a page
	private  map[uint64]struct{} // IDs of pages that are in no list handed out
	ownTable bool                // so is the slice of pages
}

// shared returns the list, which later changes leave as it is.
func (l *editor) shared() List {
	clear(l.private)
	l.ownTable = false
	return l.List
}

func (l *editor) own() {
	if !l.ownTable {
		l.pages = slices.Clone(l.pages)
		l.ownTable = true
	}
}

// page returns a page to be changed in place.
func (l *editor) page(i int) *Page {
	l.own()
	p := &l.pages[i]
	if _, is := l.private[p.ID]; !is {
		*p = l.newPage(slices.Clone(p.Entries()))
	}
	return p
}

func (l *editor) newPage(entries []Entry) Page {
	if l.private == nil {
		l.private = map[uint64]struct{}{}
	}
	l.lastID++
	l.private[l.lastID] = struct{}{}
	return Page{ID: l.lastID, entries: entries}
}

// add puts a message where its UID belongs; there must be none with that.
func (l *editor) add(e Entry) {
	l.own()
	l.n++
	at, i := l.search(e.UID)
	last := len(l.pages) - 1
	switch {
	case at <= last:
		p := l.page(at)
		p.entries = slices.Insert(p.entries, i, e)
		if len(p.entries) > 2*pageEntries {
			behind := l.newPage(slices.Clone(p.entries[pageEntries:]))
			p.entries = p.entries[:pageEntries:pageEntries]
			l.pages = slices.Insert(l.pages, at+1, behind)
		}
	case last >= 0 && l.pages[last].Len() < pageEntries:
		p := &l.pages[last]
		*p = Page{ID: p.ID, entries: append(p.Entries(), e)}
	default:
		l.pages = append(l.pages, l.newPage([]Entry{e}))
	}
}

// addPacked puts a page behind all others.
func (l *editor) addPacked(p *packing) {
	l.own()
	l.lastID++ // not a private page: a change copies it
	l.pages = append(l.pages, Page{ID: l.lastID, packed: p})
	l.n += p.n
}

// edit calls f with the message that has a UID, if there is one.
func (l *editor) edit(uid uint32, f func(*Entry)) {
	if at, i := l.search(uid); at < len(l.pages) && l.pages[at].Entries()[i].UID == uid {
		f(&l.page(at).entries[i])
	}
}

// remove removes messages, and calls gone with each that there was.
func (l *editor) remove(uids []uint32, gone func(Entry)) {
	byPage := map[int]map[uint32]bool{}
	for _, uid := range uids {
		at, i := l.search(uid)
		if at == len(l.pages) || l.pages[at].Entries()[i].UID != uid || byPage[at][uid] {
			continue
		}
		if byPage[at] == nil {
			byPage[at] = map[uint32]bool{}
		}
		byPage[at][uid] = true
		gone(l.pages[at].Entries()[i])
	}
	for at, uids := range byPage {
		p := l.page(at)
		p.entries = slices.DeleteFunc(p.entries, func(e Entry) bool { return uids[e.UID] })
		l.n -= len(uids)
	}
	if len(byPage) > 0 {
		l.pages = slices.DeleteFunc(l.pages, func(p Page) bool { return p.Len() == 0 })
	}
}
