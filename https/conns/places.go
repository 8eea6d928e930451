package conns

import "lodge/gateway"

// places are held by connections, which a newcomer may displace.
//
// The one displaced is of the peer that holds the most (as in the longest queue drop of Suter et
// al., "Design Considerations for Supporting TCP with Per-flow Queueing", INFOCOM 1998): however many
// a few peers open, they displace each other, and a peer with less keeps what it has.
type places struct {
	all, each int
	by        map[gateway.Peer]map[*Conn]struct{}
	taken     int
}

func newPlaces(all int) places {
	return places{all: all, each: max(all/shares, minShare), by: map[gateway.Peer]map[*Conn]struct{}{}}
}

// add gives c a place. It returns the connection that lost its own for it, nil if there was room;
// own means that c's peer has its share. One that stands for many may take all that are free, and is
// the first to lose them.
func (p *places) add(c *Conn) (old *Conn, own bool) {
	held := p.by[c.peer]
	switch {
	case len(held) >= p.each && !c.many:
		old, own = idlest(held), true
	case p.taken >= p.all:
		old = p.fromLargest()
	}
	if old != nil {
		p.remove(old)
	}
	if p.by[c.peer] == nil {
		p.by[c.peer] = map[*Conn]struct{}{}
	}
	p.by[c.peer][c] = struct{}{}
	p.taken++
	return old, own
}

// remove takes the place of c, if it has one.
func (p *places) remove(c *Conn) {
	held := p.by[c.peer]
	if _, ok := held[c]; !ok {
		return
	}
	p.taken--
	if delete(held, c); len(held) == 0 {
		delete(p.by, c.peer) // strangers choose addresses: none is kept for nothing
	}
}

// fromLargest returns the idlest connection of the peer with the most. Of peers with as many, it is
// the idlest of all of these.
func (p *places) fromLargest() (least *Conn) {
	most := 0
	for _, held := range p.by {
		most = max(most, len(held))
	}
	for _, held := range p.by {
		if len(held) < most {
			continue
		}
		if c := idlest(held); least == nil || c.idler(least) {
			least = c
		}
	}
	return least
}

func idlest(held map[*Conn]struct{}) (least *Conn) {
	for c := range held {
		if least == nil || c.idler(least) {
			least = c
		}
	}
	return least
}
