package libvirt

import (
	"context"
	"errors"
	"strings"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
)

// A prefix and a UUID make the name of a domain that is no VM's.
const (
	templatePrefix = "lodge-template-"
	readerPrefix   = "lodge-reader-"
)

// StartTemplate starts the guest of a template. Its domain is transient: nothing of it is left when
// it ends.
func (c *Client) StartTemplate(ctx context.Context, def Definition) error {
	return c.startTransient(ctx, "start the template", def)
}

// StartReader starts a reader, whose domain is transient too.
func (c *Client) StartReader(ctx context.Context, def Definition) error {
	return c.startTransient(ctx, "start the guest that reads the disk", def)
}

func (c *Client) startTransient(ctx context.Context, what string, def Definition) error {
	text, err := def.XML()
	if err != nil {
		return err
	}
	return c.callFor(ctx, c.startTimeout, what, func(l *rpc.Libvirt) error {
		_, err := l.DomainCreateXML(text, 0)
		return err
	})
}

// SaveTemplate ends a template's guest and writes its memory to file, in libvirt's format.
func (c *Client) SaveTemplate(ctx context.Context, def Definition, file string) error {
	return c.callFor(ctx, c.startTimeout, "save the template", func(l *rpc.Libvirt) error {
		return l.DomainSave(rpc.Domain{Name: def.name(), UUID: rpc.UUID(def.VM.ID), ID: -1}, file)
	})
}

// EndTemplates ends the guests of all templates.
func (c *Client) EndTemplates(ctx context.Context) error { return c.endAll(ctx, templatePrefix) }

// EndReaders ends all readers.
func (c *Client) EndReaders(ctx context.Context) error { return c.endAll(ctx, readerPrefix) }

// endAll ends the domains whose names begin with prefix.
func (c *Client) endAll(ctx context.Context, prefix string) error {
	var domains []rpc.Domain
	if err := c.call(ctx, "list the domains", func(l *rpc.Libvirt) (err error) {
		domains, _, err = l.ConnectListAllDomains(1, rpc.ConnectListDomainsActive)
		return err
	}); err != nil {
		return err
	}
	var errs []error
	for _, d := range domains {
		if strings.HasPrefix(d.Name, prefix) {
			errs = append(errs, c.Destroy(ctx, gateway.ID(d.UUID)))
		}
	}
	return errors.Join(errs...)
}

// StartResumed defines the VM's domain afresh, as Start does, and starts it from a save file that Adopt
// has made for it. When the guest does not run afterwards, nothing of the domain is left.
func (c *Client) StartResumed(ctx context.Context, def Definition, file string) error {
	text, err := def.XML()
	if err != nil {
		return err
	}
	if err := c.Undefine(ctx, def.VM.ID); err != nil {
		return err
	}
	err = c.callFor(ctx, c.startTimeout, startTheVM, func(l *rpc.Libvirt) error {
		if _, err := l.DomainDefineXML(text); err != nil {
			return err
		}
		return l.DomainRestoreFlags(file, nil, uint32(rpc.DomainSaveRunning))
	})
	if err != nil && answered(err) {
		_ = c.Undefine(ctx, def.VM.ID) // the next Start replaces a definition that is left
	}
	return err
}

// AnnounceDisk has the guest read the size of its root disk, in bytes, again.
func (c *Client) AnnounceDisk(ctx context.Context, id gateway.ID, size uint64) error {
	return c.call(ctx, "announce the size of the disk", func(l *rpc.Libvirt) error {
		return l.DomainBlockResize(domain(id), "vda", size, rpc.DomainBlockResizeBytes)
	})
}

// Versions returns the versions of QEMU and of libvirt, on which the format of saved memory depends.
func (c *Client) Versions(ctx context.Context) (qemu, libvirt uint64, err error) {
	err = c.call(ctx, "report its version", func(l *rpc.Libvirt) (err error) {
		if qemu, err = l.ConnectGetVersion(); err == nil {
			libvirt, err = l.ConnectGetLibVersion()
		}
		return err
	})
	return qemu, libvirt, err
}
