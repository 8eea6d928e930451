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

// Records keeps machines on disk. Each call returns only once the change is synced; gateway/store is the implementation.
type Records interface {
	// Machines returns every machine there is, removed ones that are not yet gone included.
	Machines(ctx context.Context) ([]Machine, error)
	// Create stores m with a Number and an Addr that it picks: a number is never given twice, and an address rests for
	// 15 minutes after its VM is gone. It fails with KindTaken when the name is in use.
	Create(ctx context.Context, m Machine) (Machine, error)
	// Save replaces what is stored under m.ID.
	Save(ctx context.Context, m Machine) error
	// Delete forgets the machine and puts its address to rest.
	Delete(ctx context.Context, id ID) error
}

// Directory is what the host knows of its VMs. Reads are from an immutable snapshot, without a lock; each write is on
// disk before it is seen, and goes on though its caller gives up: half-way, it would be on disk and never seen. It is safe
// for concurrent use.
type Directory struct {
	records Records
	write   sync.Mutex // one writer; also guards watchers
	now     atomic.Pointer[snapshot]
	watch   []func(old, new Machine)
}

type snapshot struct {
	byName map[string]Machine
	byID   map[ID]Machine
}

// OpenDirectory reads all machines from records.
func OpenDirectory(ctx context.Context, records Records) (*Directory, error) {
	all, err := records.Machines(ctx)
	if err != nil {
		return nil, fmt.Errorf("read machines: %w", err)
	}
	byID := make(map[ID]Machine, len(all))
	for _, m := range all {
		byID[m.ID] = m
	}
	d := &Directory{records: records}
	d.now.Store(newSnapshot(byID))
	return d, nil
}

func newSnapshot(byID map[ID]Machine) *snapshot {
	s := &snapshot{byName: make(map[string]Machine, len(byID)), byID: byID}
	for _, m := range byID {
		if m.Desired != Removed {
			s.byName[m.Name] = m
		}
	}
	return s
}

// ByName finds the VM that has a name now. A VM that is being removed has none.
func (d *Directory) ByName(name string) (Machine, bool) {
	m, ok := d.now.Load().byName[name]
	return m, ok
}

// ByID finds a VM by its UUID, one that is being removed included.
func (d *Directory) ByID(id ID) (Machine, bool) {
	m, ok := d.now.Load().byID[id]
	return m, ok
}

// All returns every VM, ordered by name.
func (d *Directory) All() []Machine {
	s := d.now.Load()
	all := make([]Machine, 0, len(s.byID))
	for _, m := range s.byID {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Machine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	})
	return all
}

// Create records a new machine, not Ready yet. m needs its ID and definition; the number and the address are given to it here.
func (d *Directory) Create(ctx context.Context, m Machine) (Machine, error) {
	if !m.Known() {
		return Machine{}, errors.New("create machine: it has no ID")
	}
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.free(m.Name); err != nil {
		return Machine{}, err
	}
	m.Created = time.Now().UTC().Truncate(time.Second)
	m, err := d.records.Create(context.WithoutCancel(ctx), m)
	if err != nil {
		return Machine{}, fmt.Errorf("record machine: %w", err)
	}
	d.show(Machine{}, m)
	return m, nil
}

// free says whether a VM can get this name now: it is well formed (KindInvalid) and not in use (KindTaken).
func (d *Directory) free(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, taken := d.ByName(name); taken {
		return Errorf(KindTaken, "there is a VM named %q already", name).
			WithHint("Choose another name, or remove that one: lodge rm %s", name)
	}
	return nil
}

// Update changes one machine: change gets a copy and may refuse with an error. Identity (ID, Number, Addr) cannot
// change, a new name must be free, and Removed is final: KindNotFound for whoever wants such a VM back.
func (d *Directory) Update(ctx context.Context, id ID, change func(*Machine) error) (Machine, error) {
	d.write.Lock()
	defer d.write.Unlock()
	old, ok := d.ByID(id)
	if !ok {
		return Machine{}, Errorf(KindNotFound, "the VM is gone")
	}
	m := old
	if err := change(&m); err != nil {
		return Machine{}, err
	}
	m.ID, m.Number, m.Addr = old.ID, old.Number, old.Addr
	if old.Desired == Removed && m.Desired != Removed {
		return Machine{}, NotFound(old.Name)
	}
	if m.Name != old.Name {
		if err := d.free(m.Name); err != nil {
			return Machine{}, err
		}
	}
	if err := d.records.Save(context.WithoutCancel(ctx), m); err != nil {
		return Machine{}, fmt.Errorf("record machine: %w", err)
	}
	d.show(old, m)
	return m, nil
}

// Delete forgets a machine for good. Its number is never used again.
func (d *Directory) Delete(ctx context.Context, id ID) error {
	d.write.Lock()
	defer d.write.Unlock()
	old, ok := d.ByID(id)
	if !ok {
		return nil
	}
	if err := d.records.Delete(context.WithoutCancel(ctx), id); err != nil {
		return fmt.Errorf("delete machine: %w", err)
	}
	d.show(old, Machine{})
	return nil
}

// Watch calls f after every change, in order, with the machine before and after it (the zero Machine where there is
// none). f must not block and must not write to the Directory.
func (d *Directory) Watch(f func(old, new Machine)) {
	d.write.Lock()
	defer d.write.Unlock()
	d.watch = append(d.watch, f)
}

// show replaces the snapshot by one in which old has become m. The caller holds d.write.
func (d *Directory) show(old, m Machine) {
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
