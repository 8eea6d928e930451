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

// Page is a part of a List. Pages of one mailbox that have an ID and a length in common are the same, unless
// the ID is 0.
type Page struct {
	ID      uint64
	Entries []Entry // never empty; what follows in its array may be another list's
}

// NewList returns a list of these entries, which are by UID.
func NewList(entries ...Entry) List {
	if len(entries) == 0 {
		return List{}
	}
	return List{pages: []Page{{Entries: entries}}, n: len(entries)}
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
			for _, e := range p.Entries {
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
			for _, e := range slices.Backward(p.Entries) {
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
	return l.pages[page].Entries[i], true
}

// search returns the place of the first message with at least uid: its page, and where it is in that. If
// there is none, the page is behind the last one.
func (l List) search(uid uint32) (page, i int) {
	page = sort.Search(len(l.pages), func(i int) bool {
		p := l.pages[i].Entries
		return p[len(p)-1].UID >= uid
	})
	if page < len(l.pages) {
		i, _ = slices.BinarySearchFunc(l.pages[page].Entries, uid, func(e Entry, uid uint32) int { return cmp.Compare(e.UID, uid) })
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
		*p = l.newPage(slices.Clone(p.Entries))
	}
	return p
}

func (l *editor) newPage(entries []Entry) Page {
	if l.private == nil {
		l.private = map[uint64]struct{}{}
	}
	l.lastID++
	l.private[l.lastID] = struct{}{}
	return Page{ID: l.lastID, Entries: entries}
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
		p.Entries = slices.Insert(p.Entries, i, e)
		if len(p.Entries) > 2*pageEntries {
			behind := l.newPage(slices.Clone(p.Entries[pageEntries:]))
			p.Entries = p.Entries[:pageEntries:pageEntries]
			l.pages = slices.Insert(l.pages, at+1, behind)
		}
	case last >= 0 && len(l.pages[last].Entries) < pageEntries:
		l.pages[last].Entries = append(l.pages[last].Entries, e)
	default:
		l.pages = append(l.pages, l.newPage([]Entry{e}))
	}
}

// addPage puts a page behind all others.
func (l *editor) addPage(entries []Entry) {
	l.own()
	l.pages = append(l.pages, l.newPage(entries))
	l.n += len(entries)
}

// edit calls f with the message that has a UID, if there is one.
func (l *editor) edit(uid uint32, f func(*Entry)) {
	if at, i := l.search(uid); at < len(l.pages) && l.pages[at].Entries[i].UID == uid {
		f(&l.page(at).Entries[i])
	}
}

// remove removes messages, and calls gone with each that there was.
func (l *editor) remove(uids []uint32, gone func(Entry)) {
	byPage := map[int]map[uint32]bool{}
	for _, uid := range uids {
		at, i := l.search(uid)
		if at == len(l.pages) || l.pages[at].Entries[i].UID != uid || byPage[at][uid] {
			continue
		}
		if byPage[at] == nil {
			byPage[at] = map[uint32]bool{}
		}
		byPage[at][uid] = true
		gone(l.pages[at].Entries[i])
	}
	for at, uids := range byPage {
		p := l.page(at)
		p.Entries = slices.DeleteFunc(p.Entries, func(e Entry) bool { return uids[e.UID] })
		l.n -= len(uids)
	}
	if len(byPage) > 0 {
		l.pages = slices.DeleteFunc(l.pages, func(p Page) bool { return len(p.Entries) == 0 })
	}
}
