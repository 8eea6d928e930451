package netid

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"lodge/gateway"
)

// tableName is the name of both tables.
const tableName = "lodge"

// families are the families of the tables.
var families = []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyARP} //nolint:gochecknoglobals // a constant

// loaded describes the ruleset that this process has last set. The zero value is unknown.
type loaded struct {
	generation uint32   // the kernel counts the transactions of all programs; 0 is unknown
	print      [32]byte // of chains and rules, without the elements of the guests' sets
}

// maxUpdate is the largest change made by single elements: a message holds some thousand of them.
const maxUpdate = 256

// applyRules lets the packets of exactly these guests pass. It replaces the ruleset only when that
// differs from what this process has set: a replacement resets the counts of connections.
func (n *Net) applyRules(ctx context.Context, next guests) error {
	stale, err := n.stale(ctx)
	if err != nil {
		return err
	}
	add, remove := without(next, n.guests), without(n.guests, next)
	if stale || len(add)+len(remove) > maxUpdate {
		return n.replaceRules(ctx, next)
	}
	if len(add)+len(remove) > 0 {
		if err := update(add, remove); err != nil {
			// Another program may have changed the rules since the comparison.
			n.config.Logger.WarnContext(ctx, "update of nft rules failed", "err", err)
			n.loaded = loaded{}
			return n.replaceRules(ctx, next)
		}
		n.loaded.generation++
	}
	n.guests = next
	return nil
}

// without returns the guests of a that are not in b.
func without(a, b guests) guests {
	rest := guests{}
	for id, vm := range a {
		if b[id] != vm {
			rest[id] = vm
		}
	}
	return rest
}

// stale reports whether the ruleset has to be replaced. It ignores changes to the tables of other
// programs.
func (n *Net) stale(ctx context.Context) (bool, error) {
	if n.loaded == (loaded{}) {
		return true, nil
	}
	now, err := generation()
	if err != nil || now == n.loaded.generation {
		return false, err
	}
	print, err := fingerprint()
	same := print == n.loaded.print
	if err == nil && same {
		same, err = holdsExactly(n.guests)
	}
	if err != nil {
		return false, err
	}
	if same {
		n.loaded.generation = now
		return false, nil
	}
	n.config.Logger.WarnContext(ctx, "nft rules were changed by another program")
	return true, nil
}

// replaceRules replaces the ruleset. When another program changes rules meanwhile, the next call
// replaces it again.
func (n *Net) replaceRules(ctx context.Context, next guests) error {
	before, err := generation()
	if err != nil {
		return err
	}
	n.loaded = loaded{}
	if err := load(ctx, n.config.rules(next, n.around)); err != nil {
		return err
	}
	n.guests = next
	print, err := fingerprint()
	if err != nil {
		return err
	}
	after, err := generation()
	if err == nil && after == before+1 {
		n.loaded = loaded{after, print}
	}
	return err
}

// load runs nft, which sets all of the rules or none.
func load(ctx context.Context, rules string) error {
	nft := exec.CommandContext(ctx, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	out, err := nft.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return gateway.Errorf(gateway.KindUnavailable, "the program nft is not installed").
			WithHint("apt-get install nftables").Because(err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return fmt.Errorf("load nft rules: %w: %s", cmp.Or(ctx.Err(), err), first)
}

// generation is the number of nftables transactions in this network namespace so far; never 0.
func generation() (uint32, error) {
	request := nftRequest(unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, 0)
	replies, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("read the nft generation: %w", err)
	}
	for _, reply := range replies {
		if id, ok := attribute(reply, unix.NFTA_GEN_ID); ok && len(id) == 4 {
			return binary.BigEndian.Uint32(id), nil
		}
	}
	return 0, errors.New("read the nft generation: the kernel returned none")
}

// fingerprint is a hash of the tables' chains, rules and constant sets.
func fingerprint() (sum [32]byte, err error) {
	hash := sha256.New()
	for _, family := range families {
		for _, kind := range []int{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSETELEM} {
			if err := dump(hash, kind, family); err != nil {
				return sum, err
			}
		}
	}
	return [32]byte(hash.Sum(nil)), nil
}

// dump writes the kernel's objects of one kind in one of the tables to w. Of set elements it dumps
// those of "elsewhere".
func dump(w interface{ Write(b []byte) (int, error) }, kind int, family nftables.TableFamily) error {
	const tableAttribute = 1 // in every kind of object
	request := nftRequest(kind, uint8(family), unix.NLM_F_DUMP)
	request.AddData(nl.NewRtAttr(tableAttribute, nl.ZeroTerminated(tableName)))
	if kind == unix.NFT_MSG_GETSETELEM {
		request.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated("elsewhere")))
	}
	var objects [][]byte
	err := repeated(func() (err error) {
		objects, err = request.Execute(unix.NETLINK_NETFILTER, 0)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("list nft rules: %w", err)
	}
	for _, object := range objects {
		if table, ok := attribute(object, tableAttribute); !ok || string(bytes.TrimRight(table, "\x00")) != tableName {
			continue // the kernel lists other tables too
		}
		_, _ = w.Write(object[nl.SizeofNfgenmsg:]) // the header holds the generation; a hash never fails
	}
	return nil
}

func nftRequest(kind int, family uint8, flags int) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	return request
}

// attribute returns the value of one attribute of an nftables message.
func attribute(message []byte, kind uint16) ([]byte, bool) {
	if len(message) < nl.SizeofNfgenmsg {
		return nil, false
	}
	attributes, err := nl.ParseRouteAttr(message[nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, false
	}
	for _, a := range attributes {
		if a.Attr.Type&nl.NLA_TYPE_MASK == kind {
			return a.Value, true
		}
	}
	return nil, false
}

// update adds and removes elements of the sets "guests", in one transaction. It fails when an
// element to remove is absent.
func update(add, remove guests) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, family := range families {
		set := guestSet(family)
		if err := errors.Join(conn.SetDeleteElements(set, elements(remove)), conn.SetAddElements(set, elements(add))); err != nil {
			return fmt.Errorf("change nft elements: %w", err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change nft elements: %w", err)
	}
	return nil
}

// elements returns the guests as elements of the sets.
func elements(g guests) []nftables.SetElement {
	all := make([]nftables.SetElement, 0, len(g))
	for _, vm := range g {
		all = append(all, nftables.SetElement{Key: element(vm)})
	}
	return all
}

// element is ifname . ether_addr . ipv4_addr; each part is padded to a multiple of four bytes.
func element(vm gateway.Identity) []byte {
	const paddedName, paddedMAC = unix.IFNAMSIZ, 8
	key := make([]byte, paddedName+paddedMAC, paddedName+paddedMAC+4)
	copy(key, vm.Tap())
	copy(key[paddedName:], vm.MAC())
	return append(key, vm.Addr.AsSlice()...)
}

func guestSet(family nftables.TableFamily) *nftables.Set {
	return &nftables.Set{Name: "guests", Table: &nftables.Table{Name: tableName, Family: family}}
}

// holdsExactly reports whether the sets "guests", which exist, have these guests' elements and no
// others.
func holdsExactly(g guests) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	want := map[string]bool{}
	for _, vm := range g {
		want[string(element(vm))] = true
	}
	for _, family := range families {
		have, err := conn.GetSetElements(guestSet(family))
		if err != nil {
			return false, fmt.Errorf("list nft elements: %w", err)
		}
		if len(have) != len(want) {
			return false, nil
		}
		for _, e := range have {
			if !want[string(e.Key)] {
				return false, nil
			}
		}
	}
	return true, nil
}
