package netid

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watch collects the kernel's notifications about interfaces, addresses, routes and neighbours. No
// goroutine reads them: they stay in the socket until drain.
type watch struct {
	socket *nl.NetlinkSocket
	buf    []byte
}

// changes are the subjects of notifications.
type changes struct {
	taps   bool // an interface whose name begins with "lg", its address, route, neighbour or settings
	around bool // another interface or route
}

// everything returns the changes to assume when notifications may be missing.
func everything() changes { return changes{taps: true, around: true} }

func newWatch() (*watch, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces and routes: %w", err)
	}
	return &watch{socket: socket, buf: make([]byte, 64<<10)}, nil
}

// drain reads all notifications that have come. taps are the indexes of the taps; it never waits.
func (w *watch) drain(taps map[int]bool) (changes, error) {
	var all changes
	for {
		n, _, err := unix.Recvfrom(w.socket.GetFd(), w.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return all, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // the socket's buffer was full
			all = everything()
			continue
		case err != nil:
			return everything(), fmt.Errorf("watch interfaces and routes: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(w.buf[:n])
		if err != nil {
			return everything(), fmt.Errorf("watch interfaces and routes: %w", err)
		}
		for _, m := range messages {
			all.note(m, taps)
		}
	}
}

func (c *changes) note(m syscall.NetlinkMessage, taps map[int]bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if isTapName(linkName(m.Data)) {
			c.taps = true
		} else {
			c.around = true
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		c.noteIndex(indexAt(m.Data, 4), taps) // struct ifaddrmsg
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		c.noteIndex(attributeIndex(m.Data, unix.SizeofRtMsg, unix.RTA_OIF), taps)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		c.taps = c.taps || taps[indexAt(m.Data, 4)] // struct ndmsg; entries of other interfaces change all the time
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		c.taps = c.taps || taps[attributeIndex(m.Data, 4, netconfIndex)] // struct netconfmsg is one byte, padded
	}
}

func (c *changes) noteIndex(index int, taps map[int]bool) {
	if taps[index] {
		c.taps = true
	} else {
		c.around = true
	}
}

// netconfIndex is NETCONFA_IFINDEX of linux/netconf.h.
const netconfIndex = 1

// isTapName reports whether an interface of this name belongs to this package.
func isTapName(name string) bool { return strings.HasPrefix(name, "lg") }

func linkName(data []byte) string {
	name, _ := routeAttribute(data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME) // empty if there is none, which is no tap's
	return string(bytes.TrimRight(name, "\x00"))
}

// indexAt reads an interface index at an offset; 0, which no interface has, when data is too short.
func indexAt(data []byte, offset int) int {
	if len(data) < offset+4 {
		return 0
	}
	return int(nl.NativeEndian().Uint32(data[offset:]))
}

func attributeIndex(data []byte, header int, kind uint16) int {
	value, _ := routeAttribute(data, header, kind) // 0 if there is none
	return indexAt(value, 0)
}

func routeAttribute(data []byte, header int, kind uint16) ([]byte, bool) {
	if len(data) < header {
		return nil, false
	}
	attributes, err := nl.ParseRouteAttr(data[header:])
	if err != nil {
		return nil, false
	}
	for _, a := range attributes {
		if a.Attr.Type == kind {
			return a.Value, true
		}
	}
	return nil, false
}
