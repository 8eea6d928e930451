package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Records keeps VMs on disk. Each call returns only once the change is synced. gateway/store
// implements it.
type Records interface {
	// VMs returns every VM, including those whose removal is not complete.
	VMs(ctx context.Context) ([]VM, error)
	// Create stores m with a Number and an Addr of its choice. A number is never used again, an
	// address not for 15 minutes after its VM is removed. A name, a domain or a mail
	// alias that is in use is KindTaken.
	Create(ctx context.Context, m VM) (VM, error)
	// Save replaces what is stored under m.ID. A new name, domain or alias that is in use is KindTaken.
	Save(ctx context.Context, m VM) error
	// Delete removes the VM. Its address rests.
	Delete(ctx context.Context, id ID) error
}

// Directory has the VMs of the host. Reads use an immutable snapshot, without a lock. Each write is
// on disk before it is visible, and ignores cancellation, so that memory and disk cannot diverge.
// It is safe for concurrent use.
type Directory struct {
	records Records
	write   sync.Mutex // one writer; also guards watchers
	now     atomic.Pointer[snapshot]
	watch   []func(old, new VM)
}

type snapshot struct {
	byName   map[string]VM
	byID     map[ID]VM
	byDomain map[string]VM
	byAlias  map[string]VM
}

// OpenDirectory reads all VMs from records.
func OpenDirectory(ctx context.Context, records Records) (*Directory, error) {
	all, err := records.VMs(ctx)
	if err != nil {
		return nil, fmt.Errorf("read VMs: %w", err)
	}
	byID := make(map[ID]VM, len(all))
	for _, m := range all {
		byID[m.ID] = m
	}
	d := &Directory{records: records}
	d.now.Store(newSnapshot(byID))
	return d, nil
}

func newSnapshot(byID map[ID]VM) *snapshot {
	s := &snapshot{byName: make(map[string]VM, len(byID)), byID: byID, byDomain: map[string]VM{}, byAlias: map[string]VM{}}
	for _, m := range byID {
		if m.Desired == Removed {
			continue
		}
		s.byName[m.Name] = m
		for _, domain := range m.Domains {
			s.byDomain[domain.Name] = m
		}
		for _, alias := range m.Mail.Aliases {
			s.byAlias[alias] = m
		}
	}
	return s
}

// ByName returns the VM with a name. A VM that is being removed has none.
func (d *Directory) ByName(name string) (VM, bool) {
	m, ok := d.now.Load().byName[name]
	return m, ok
}

// ByID returns the VM with a UUID, which may be one that is being removed.
func (d *Directory) ByID(id ID) (VM, bool) {
	m, ok := d.now.Load().byID[id]
	return m, ok
}

// All returns every VM, ordered by name.
func (d *Directory) All() []VM {
	s := d.now.Load()
	all := make([]VM, 0, len(s.byID))
	for _, m := range s.byID {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b VM) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	})
	return all
}

// Create records a new VM. m needs its ID and definition; the number and the address are chosen
// here.
func (d *Directory) Create(ctx context.Context, m VM) (VM, error) {
	if !m.Known() {
		return VM{}, errors.New("create VM: it has no ID")
	}
	d.write.Lock()
	defer d.write.Unlock()
	if err := errors.Join(d.CheckFree(m.Name), d.checkDomains(m), d.checkAliases(m)); err != nil {
		return VM{}, err
	}
	m.Created = time.Now().UTC().Truncate(time.Second)
	m, err := d.records.Create(context.WithoutCancel(ctx), m)
	if err != nil {
		return VM{}, fmt.Errorf("record VM: %w", err)
	}
	d.show(VM{}, m)
	return m, nil
}

// CheckFree checks that a name is well formed (else KindInvalid) and not in use now (else KindTaken),
// as a name or as a mail alias.
func (d *Directory) CheckFree(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, taken := d.ByName(name); taken {
		return Errorf(KindTaken, "there is a VM named %q already", name).
			WithHint("Choose another name, or remove that one: lodge rm %s", name)
	}
	if holder, taken := d.ByAlias(name); taken {
		return errAliasTaken(name, holder)
	}
	return nil
}

// Update changes one VM: change gets a copy, and its error ends the Update. ID, Number and Addr
// cannot change, and a new name, domain or mail alias must be free. Removed is final: another desired state is
// KindNotFound.
func (d *Directory) Update(ctx context.Context, id ID, change func(*VM) error) (VM, error) {
	d.write.Lock()
	defer d.write.Unlock()
	old, ok := d.ByID(id)
	if !ok {
		return VM{}, Errorf(KindNotFound, "the VM is gone")
	}
	m := old
	if err := change(&m); err != nil {
		return VM{}, err
	}
	m.ID, m.Number, m.Addr = old.ID, old.Number, old.Addr
	if old.Desired == Removed && m.Desired != Removed {
		return VM{}, NotFound(old.Name)
	}
	if m.Name != old.Name {
		if err := d.CheckFree(m.Name); err != nil {
			return VM{}, err
		}
	}
	if err := errors.Join(d.checkDomains(m), d.checkAliases(m)); err != nil {
		return VM{}, err
	}
	if err := d.records.Save(context.WithoutCancel(ctx), m); err != nil {
		return VM{}, fmt.Errorf("record VM: %w", err)
	}
	d.show(old, m)
	return m, nil
}

// Delete removes the record of a VM. Its number is never used again.
func (d *Directory) Delete(ctx context.Context, id ID) error {
	d.write.Lock()
	defer d.write.Unlock()
	old, ok := d.ByID(id)
	if !ok {
		return nil
	}
	if err := d.records.Delete(context.WithoutCancel(ctx), id); err != nil {
		return fmt.Errorf("delete VM: %w", err)
	}
	d.show(old, VM{})
	return nil
}

// Watch calls f after every change, in order, with the VM before and after it (the zero VM where
// there is none). f must not block and must not write to the Directory.
func (d *Directory) Watch(f func(old, new VM)) {
	d.write.Lock()
	defer d.write.Unlock()
	d.watch = append(d.watch, f)
}

// show replaces the snapshot by one with m in place of old. The caller holds d.write.
func (d *Directory) show(old, m VM) {
	byID := maps.Clone(d.now.Load().byID)
	delete(byID, old.ID)
	if m.Known() {
		byID[m.ID] = m
	}
	d.now.Store(newSnapshot(byID))
	for _, f := range d.watch {
		f(old, m)
	}
}
