package storage

import (
	"context"
	"net/http"
	"sync"

	"lodge/gateway"
	"lodge/storage/s3"
)

// granted is a request of a VM for a bucket of another one, which that has granted to it.
type granted struct {
	owner  gateway.Identity
	to     gateway.ID
	target s3.Target // in the owner's namespace
	access gateway.BucketAccess

	ctx context.Context // ends with the grant, and with the owner
	end context.CancelFunc
}

// grantees has the requests under way by grants.
type grantees struct {
	mu  sync.Mutex
	all map[*granted]struct{}
}

func newGrantees() *grantees { return &grantees{all: map[*granted]struct{}{}} }

// changed ends the requests that a change of their bucket's VM no longer allows.
func (g *grantees) changed(old, now gateway.VM) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for use := range g.all {
		if use.owner.ID == old.ID && now.S3.GrantedTo(use.target.Bucket, use.to) != use.access {
			use.end()
		}
	}
}

func (g *grantees) enter(use *granted) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[use] = struct{}{}
	return func() {
		use.end()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.all, use)
	}
}

// errNotGranted is the same whether there is such a VM or bucket.
func errNotGranted() error {
	return errDenied("No bucket of another VM is granted to this one by that name. Its owner grants it: lodge s3 grant VM/BUCKET read --to VM")
}

// byGrant finds the grant that a request at a tap needs, nil for one in the VM's own namespace. The
// tap alone proves whose the request is: keys of the VM work elsewhere, and its grants do not. Call
// leave after the request.
func (s *Server) byGrant(r *http.Request, who s3.Caller) (_ *granted, leave func(), err error) {
	name, target, ok, err := s3.ParseGranted(r)
	if !ok || !who.Inside {
		return nil, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	owner, found := s.directory.ByName(name)
	access := owner.S3.GrantedTo(target.Bucket, who.VM.ID)
	if !found || access == gateway.NoBucketAccess {
		return nil, nil, errNotGranted()
	}
	return s.enterGrant(r.Context(), owner, target, who.VM.ID, access)
}

// enterGrant begins a request by a grant.
func (s *Server) enterGrant(parent context.Context, owner gateway.VM, target s3.Target, to gateway.ID, access gateway.BucketAccess) (_ *granted, leave func(), err error) {
	ctx, leaveOwner, err := s.admission.join(parent, owner.ID)
	if err != nil {
		return nil, nil, errNotGranted()
	}
	use := &granted{owner: owner.Identity, to: to, target: target, access: access}
	use.ctx, use.end = context.WithCancel(ctx)
	leaveUse := s.grantees.enter(use)
	leave = func() { leaveUse(); leaveOwner() }
	if now, _ := s.directory.ByID(owner.ID); now.S3.GrantedTo(target.Bucket, to) != access { // changed before enter
		leave()
		return nil, nil, errNotGranted()
	}
	if err := s.objects.Readable(owner.ID); err != nil {
		leave()
		return nil, nil, err
	}
	return use, leave, nil
}

// caller is who carries out a request by a grant: it counts for the quota of the bucket's VM.
func (g *granted) caller(who s3.Caller) s3.Caller {
	return s3.Caller{VM: g.owner, Granted: g.access, Source: who.Source, Chain: who.Chain}
}

// sources finds the sources of copies that a VM makes at its tap.
func (s *Server) sources(vm gateway.Identity) s3.FindSource {
	return func(ctx context.Context, bucket string) (s3.CopySource, error) {
		return s3.InsideSource(ctx, vm, bucket, func(name, bucket string) (s3.CopySource, error) {
			owner, found := s.directory.ByName(name)
			access := owner.S3.GrantedTo(bucket, vm.ID)
			if !found || access == gateway.NoBucketAccess {
				return s3.CopySource{}, errNotGranted()
			}
			use, leave, err := s.enterGrant(ctx, owner, s3.Target{Bucket: bucket}, vm.ID, access)
			if err != nil {
				return s3.CopySource{}, err
			}
			return s3.CopySource{VM: use.owner, Bucket: bucket, Granted: access, Ctx: use.ctx, Leave: leave}, nil
		})
	}
}
