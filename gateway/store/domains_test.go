package store

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func withDomains(m gateway.VM, names ...string) gateway.VM {
	m.Domains = nil
	for _, name := range names {
		m.Domains = append(m.Domains, gateway.Domain{Name: name, Port: 8080, Passthrough: true})
	}
	return m
}

func TestDomainClaimsFollowTheVM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := opened(t, path, "10.213.0.0/29")
	blog, err := s.Create(t.Context(), withDomains(named("blog"), "a.example.com"))
	gatewaytest.Must(t, err)
	claimed(t, s, "name/blog", "domain/a.example.com", "addr/10.213.0.2")
	gatewaytest.Must(t, s.Save(t.Context(), withDomains(blog, "*.example.com", "b.example.com")))
	claimed(t, s, "name/blog", "domain/*.example.com", "domain/b.example.com", "addr/10.213.0.2")
	gatewaytest.Must(t, s.Close())

	s = opened(t, path, "10.213.0.0/29")
	claimed(t, s, "name/blog", "domain/*.example.com", "domain/b.example.com", "addr/10.213.0.2")
	all, err := s.VMs(t.Context())
	if err != nil || len(all) != 1 || len(all[0].Domains) != 2 || all[0].Domains[0] != (gateway.Domain{Name: "*.example.com", Port: 8080, Passthrough: true}) {
		t.Fatalf("after reopening: %+v, %v", all, err)
	}
	blog = all[0]
	blog.Desired = gateway.Removed
	gatewaytest.Must(t, s.Save(t.Context(), blog))
	claimed(t, s, "addr/10.213.0.2")
	gatewaytest.Must(t, s.Delete(t.Context(), blog.ID))
	claimed(t, s, "addr/10.213.0.2*")
}

// A domain belongs to one VM. A change that fails for it changes nothing.
func TestDomainIsClaimedOnce(t *testing.T) {
	s := fresh(t, "10.213.0.0/29")
	blog, err := s.Create(t.Context(), withDomains(named("blog"), "a.example.com"))
	gatewaytest.Must(t, err)
	shop, err := s.Create(t.Context(), named("shop"))
	gatewaytest.Must(t, err)
	if err := s.Save(t.Context(), withDomains(shop, "b.example.com", "a.example.com")); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("another VM's domain: %v", err)
	}
	if _, err := s.Create(t.Context(), withDomains(named("third"), "a.example.com")); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("a new VM with another's domain: %v", err)
	}
	claimed(t, s, "name/blog", "name/shop", "name/third", "domain/a.example.com", "addr/10.213.0.2", "addr/10.213.0.3", "addr/10.213.0.4")
	gatewaytest.Must(t, s.Save(t.Context(), withDomains(blog)))
	gatewaytest.Must(t, s.Save(t.Context(), withDomains(shop, "a.example.com")))
	claimed(t, s, "name/blog", "name/shop", "domain/a.example.com", "addr/10.213.0.2", "addr/10.213.0.3", "addr/10.213.0.4*")
}

// A crash, or a row that cannot be written, leaves no claim to a domain.
func TestDomainWithoutRowIsReleased(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := opened(t, path, "10.213.0.0/29")
	blog, err := s.Create(t.Context(), named("blog"))
	gatewaytest.Must(t, err)
	shop, err := s.Create(t.Context(), named("shop"))
	gatewaytest.Must(t, err)
	exec := func(statement string) {
		t.Helper()
		_, err := s.db.ExecContext(t.Context(), statement)
		gatewaytest.Must(t, err)
	}
	exec(`CREATE TRIGGER no_change BEFORE UPDATE ON machines BEGIN SELECT raise(ABORT, 'no'); END`)
	if err := s.Save(t.Context(), withDomains(blog, "a.example.com")); err == nil {
		t.Error("a domain without a row")
	}
	exec(`DROP TRIGGER no_change`)
	gatewaytest.Must(t, s.Save(t.Context(), withDomains(shop, "a.example.com")))
	gatewaytest.Must(t, s.claimKeys(t.Context(), blog.ID, []string{domainPrefix + "crash.example.com"}))
	gatewaytest.Must(t, s.Close())
	s = opened(t, path, "10.213.0.0/29")
	claimed(t, s, "name/blog", "name/shop", "domain/a.example.com", "addr/10.213.0.2", "addr/10.213.0.3")
}

// Of VMs that claim a domain at the same time exactly one gets it.
func TestDomainRace(t *testing.T) {
	s := fresh(t, "10.213.0.0/24")
	var won atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			err := s.claimKeys(t.Context(), gateway.NewID(), []string{domainPrefix + "a.example.com"})
			if err == nil {
				won.Add(1)
			} else if gateway.KindOf(err) != gateway.KindTaken {
				t.Errorf("claim: %v", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
}
