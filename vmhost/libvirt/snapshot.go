package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// rootDisk is the target of the root disk.
const rootDisk = "vda"

// agentLimit is how long the agent of a guest may take to freeze its file systems, to thaw them, and to set
// the clock.
const agentLimit = 2 * time.Second

// ErrRefused marks the error of a Pivot that has certainly changed nothing.
var ErrRefused = errors.New("the domain writes to its old disk")

// Pivot has the running domain write to file, a qcow2 overlay of the disk that it writes to so far.
// The guest does not notice. With quiesce, libvirtd has the guest agent freeze the file systems before
// and thaw them after, also if this daemon ends meanwhile. After an error without ErrRefused libvirtd
// may have done it, or may still do it: see DiskFile.
func (c *Client) Pivot(ctx context.Context, id gateway.ID, file string, quiesce bool) error {
	text, err := pivotXML(file, "")
	if err != nil {
		return errors.Join(err, ErrRefused)
	}
	flags := rpc.DomainSnapshotCreateDiskOnly | rpc.DomainSnapshotCreateReuseExt | rpc.DomainSnapshotCreateAtomic | rpc.DomainSnapshotCreateNoMetadata
	if quiesce {
		flags |= rpc.DomainSnapshotCreateQuiesce
		defer c.setAgentTimeout(ctx, id, agentTimeoutDefault)
		c.setAgentTimeout(ctx, id, int32(agentLimit/time.Second))
	}
	err = c.call(ctx, "change the disk of the VM over", func(l *rpc.Libvirt) error {
		_, err := l.DomainSnapshotCreateXML(domain(id), text, uint32(flags))
		return err
	})
	if err == nil {
		return nil
	}
	if quiesce {
		c.Thaw(ctx, id)
	}
	if code(err) == rpc.ErrOk { // no answer
		return err
	}
	// The answer may be about the thawing alone.
	switch done, failed := c.writesTo(ctx, id, file); {
	case failed != nil:
		return errors.Join(err, failed)
	case done:
		return nil
	}
	if agentFailed(err) {
		err = gateway.Errorf(gateway.KindConflict, "the file systems of the guest could not be frozen: its guest agent does not answer as it should").
			WithHint("Look whether qemu-guest-agent runs in the VM, or make the checkpoint without --quiesce.").Because(err)
	}
	return errors.Join(err, ErrRefused)
}

// PivotWithMemory is Pivot that also writes the memory of the guest at that moment to a file, in libvirt's
// format. The guest runs on while most of that is written.
func (c *Client) PivotWithMemory(ctx context.Context, id gateway.ID, file, memory string) error {
	text, err := pivotXML(file, memory)
	if err != nil {
		return errors.Join(err, ErrRefused)
	}
	const flags = rpc.DomainSnapshotCreateLive | rpc.DomainSnapshotCreateReuseExt | rpc.DomainSnapshotCreateAtomic | rpc.DomainSnapshotCreateNoMetadata
	err = c.callFor(ctx, c.startTimeout, "write the memory of the VM", func(l *rpc.Libvirt) error {
		_, err := l.DomainSnapshotCreateXML(domain(id), text, uint32(flags))
		return err
	})
	if err == nil {
		return nil
	}
	if code(err) == rpc.ErrOk { // no answer
		c.abortJob(ctx, id) // which would keep the domain busy
		return err
	}
	if done, failed := c.writesTo(ctx, id, file); done || failed != nil {
		return errors.Join(err, failed) // the memory may be incomplete
	}
	return errors.Join(err, ErrRefused)
}

// abortJob ends what libvirtd is doing with a domain. A failure is no error: it ends by itself too.
func (c *Client) abortJob(ctx context.Context, id gateway.ID) {
	_ = c.call(context.WithoutCancel(ctx), "end a job", func(l *rpc.Libvirt) error { return l.DomainAbortJob(domain(id)) })
}

// writesTo reports whether the domain writes its root disk to file.
func (c *Client) writesTo(ctx context.Context, id gateway.ID, file string) (bool, error) {
	now, err := c.DiskFile(ctx, id, false)
	return err == nil && now == file, err
}

// agentFailed reports whether err is about the guest agent.
func agentFailed(err error) bool {
	switch code(err) {
	case rpc.ErrAgentUnresponsive, rpc.ErrAgentUnsynced, rpc.ErrAgentCommandTimeout, rpc.ErrAgentCommandFailed:
		return true
	case rpc.ErrInternalError:
		return strings.Contains(err.Error(), "malformed return value") // qemu_agent.c: not what was asked for
	default:
		return false
	}
}

// pivotXML asks for an overlay of the root disk, and for the memory unless its file is empty.
func pivotXML(file, memory string) (string, error) {
	s := libvirtxml.DomainSnapshot{Disks: &libvirtxml.DomainSnapshotDisks{Disks: []libvirtxml.DomainSnapshotDisk{
		{
			Name: rootDisk, Snapshot: "external", Driver: &libvirtxml.DomainDiskDriver{Type: string(gateway.QCOW2)},
			Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: file}},
		},
		{Name: "vdb", Snapshot: "no"}, // the seed
	}}}
	if memory != "" {
		s.Memory = &libvirtxml.DomainSnapshotMemory{Snapshot: "external", File: memory}
	}
	text, err := s.Marshal()
	if err != nil {
		return "", fmt.Errorf("write definition of a disk: %w", err)
	}
	return text, nil
}

// agentTimeoutDefault is VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT of libvirt.
const agentTimeoutDefault = -1

// setAgentTimeout sets how long libvirtd waits for the guest's agent. A failure is no error: the call
// that follows has a limit of its own.
func (c *Client) setAgentTimeout(ctx context.Context, id gateway.ID, seconds int32) {
	_ = c.call(context.WithoutCancel(ctx), "set a limit for the guest's agent", func(l *rpc.Libvirt) error {
		_, err := l.DomainAgentSetResponseTimeout(domain(id), seconds, 0)
		return err
	})
}

// Thaw has the guest's agent thaw the file systems. It ignores cancellation. A guest without an agent
// has frozen none, so there is no error.
func (c *Client) Thaw(ctx context.Context, id gateway.ID) {
	_ = c.callFor(context.WithoutCancel(ctx), 2*agentLimit, "thaw the guest", func(l *rpc.Libvirt) error {
		_, err := l.DomainFsthaw(domain(id), nil, 0)
		return err
	})
}

// DiskFile returns the file that the domain writes its root disk to; with saved, that of its saved
// memory.
func (c *Client) DiskFile(ctx context.Context, id gateway.ID, saved bool) (string, error) {
	files, err := c.DiskFiles(ctx, id, saved)
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// DiskFiles returns the files of the domain's root disk: the one that it writes to, and the layers
// below that, the uppermost first; with saved, those of its saved memory.
func (c *Client) DiskFiles(ctx context.Context, id gateway.ID, saved bool) ([]string, error) {
	var text string
	err := c.call(ctx, "describe the VM", func(l *rpc.Libvirt) (err error) {
		if saved {
			text, err = l.DomainManagedSaveGetXMLDesc(domain(id), 0)
		} else {
			text, err = l.DomainGetXMLDesc(domain(id), 0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read domain definition: %w", err)
	}
	if d.Devices != nil {
		for _, disk := range d.Devices.Disks {
			if disk.Target != nil && disk.Target.Dev == rootDisk && disk.Source != nil && disk.Source.File != nil {
				return append([]string{disk.Source.File.File}, filesBelow(disk.BackingStore)...), nil
			}
		}
	}
	return nil, errors.New("read domain definition: it has no root disk")
}

func filesBelow(b *libvirtxml.DomainDiskBackingStore) (files []string) {
	for ; b != nil && b.Source != nil && b.Source.File != nil; b = b.BackingStore {
		files = append(files, b.Source.File.File)
	}
	return files
}
