package vmhost

import (
	"context"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
)

// checkDisk fails if the domain of a VM has a disk that is not on record: somebody has changed it, such as by
// virsh snapshot-create. A start from the record would lose what the guest has written
// there, and a checkpoint would not have it. The disk of a domain that runs has to be the record's.
func (h *Host) checkDisk(ctx context.Context, id gateway.ID) error {
	state, err := h.virt.State(ctx, id)
	if err != nil {
		return err
	}
	switch state {
	case libvirt.Absent, libvirt.Saved, libvirt.Migrated: // without a domain, or not to be started from the record
		return nil
	}
	file, err := h.virt.DiskFile(ctx, id, false)
	if err != nil {
		return err
	}
	m, _ := h.dir.ByID(id)
	top, err := h.layers.Get(m.Disk)
	if err != nil {
		return err
	}
	switch own := h.layers.Path(top); {
	case file == own, hasEnded(state) && h.layers.Has(file): // a checkpoint of a VM that is off leaves its definition alone
		return nil
	case h.layers.Has(file):
		return gateway.Errorf(gateway.KindUnavailable, "the disk of %s is being changed over to the layer %s", m.Name, file).WithHint("Try again in a moment.")
	default:
		return errForeign(m, file, own, hasEnded(state))
	}
}

// errForeign names the command that brings what the guest has written to file back into the VM's disk.
func errForeign(m gateway.VM, file, own string, ended bool) error {
	domain := libvirt.DomainName(m.ID)
	err := gateway.Errorf(gateway.KindConflict, "the disk of %s is %s, to which somebody has changed it over without Lodge", m.Name, file)
	if ended {
		return err.WithHint("If it is a snapshot of %s: qemu-img commit -b %s %s && virsh undefine --snapshots-metadata %s. To give up what is in it: lodge stop --force %s", own, own, file, domain, m.Name)
	}
	return err.WithHint("If it is a snapshot: virsh blockcommit %s vda --base %s --active --pivot. To give up what is in it: lodge stop --force %s", domain, own, m.Name)
}

// undefine removes the definition of a domain that has ended, unless it alone names the file that has the
// VM's newest data.
func (h *Host) undefine(ctx context.Context, id gateway.ID) error {
	if err := h.checkDisk(ctx, id); err != nil {
		return err
	}
	return h.virt.Undefine(ctx, id)
}
