// Package gateway identifies VMs.
//
// A VM is identified by the tap its packets come in on, and by nothing else. Each service listens
// once per tap (TapListeners); the connections that it accepts there carry the VM as a value
// (IdentityOf). Neither libvirt, a lease, ARP nor a header identifies a caller: a guest can
// influence all of them.
//
// The Directory holds the record of each VM in an immutable snapshot, which is read without a lock.
// It writes each change to disk before readers see it. The neighbours (vmhost, https, mail,
// storage) import this package and never each other.
//
// This package never talks to libvirt, never terminates TLS and never stores mail or objects.
package gateway

import "net/netip"

// LinkLocal is the gateway's one address for guests, on every tap (RFC 3927). Cloud images look for
// metadata there (EC2 User Guide).
var LinkLocal = netip.AddrFrom4([4]byte{169, 254, 169, 254}) //nolint:gochecknoglobals // a constant: netip.Addr has no const form

// InternalDomain is the domain of names that only guests can resolve: s3.lodge.internal is S3, and
// <vm>.lodge.internal a VM's page. Programs that take "localhost" for the machine itself, such as
// curl, look these names up.
const InternalDomain = "lodge.internal"

// S3Host is the name of the S3 service inside guests.
const S3Host = "s3." + InternalDomain

// GuestUser is the login user of every VM (uid 1000, sudo without password); mail lands in its
// Maildir.
const GuestUser = "lodge"
