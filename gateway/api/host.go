package api

import (
	"context"
	"log/slog"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Health is the state of the daemon.
type Health struct {
	Version string `json:"version"`
	Domain  string `json:"domain"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"` // why it is not ready
	VMs     int    `json:"vms"`
}

// Credentials are S3 credentials for one VM, for use on the host's own socket.
type Credentials struct {
	AccessKey string    `json:"access_key"`
	SecretKey string    `json:"secret_key"`
	Expires   time.Time `json:"expires"`
}

// Health returns the state of the daemon.
func (s Session) Health(context.Context) (Health, error) {
	if err := s.allowed(verbHealth); err != nil {
		return Health{}, err
	}
	h := Health{Version: s.api.Version, Domain: s.api.Domain, Ready: true, VMs: len(s.api.Directory.All())}
	if s.api.Ready != nil {
		if err := s.api.Ready(); err != nil {
			h.Ready, h.Reason = false, err.Error()
		}
	}
	return h, nil
}

// RootPEM returns the certificate of the host's own CA.
func (s Session) RootPEM(context.Context) ([]byte, error) {
	if err := s.allowed(verbRootPEM); err != nil {
		return nil, err
	}
	return s.api.Web.RootPEM(), nil
}

// Login returns a link that logs person in to the VM's pages, once. The empty person is the caller; owners
// alone make links for others.
func (s Session) Login(ctx context.Context, name, person string) (string, error) {
	m, err := s.vm(verbLogin, name)
	if err != nil {
		return "", err
	}
	who, err := s.loginAs(verbLogin, person)
	if err != nil {
		return "", err
	}
	return s.loginLink(ctx, m, who)
}

// LoginHost returns a link that logs person in at the host's own domain, for all pages that the person may
// open, once. The empty person is the caller; owners alone make such links.
func (s Session) LoginHost(ctx context.Context, person string) (string, error) {
	if err := s.allowed(verbLoginHost); err != nil {
		return "", err
	}
	who, err := s.loginAs(verbLoginHost, person)
	if err != nil {
		return "", err
	}
	url, err := s.api.Web.LoginURL(ctx, gateway.ID{}, who.ID)
	if err == nil {
		s.audit(ctx, gateway.EventLoginMade, slog.String("person", who.Mail))
	}
	return url, err
}

// loginAs returns who is to be logged in. The empty address is the caller.
func (s Session) loginAs(v verb, address string) (people.Person, error) {
	who := s.person()
	if address != "" {
		var err error
		if who, err = s.personOf(address); err != nil {
			return people.Person{}, err
		}
	}
	if who.ID != s.person().ID && !s.owns() { // it would act as them
		return people.Person{}, errDenied(v)
	}
	return who, nil
}

// Credentials issues S3 credentials for a VM.
func (s Session) Credentials(_ context.Context, name string) (Credentials, error) {
	m, err := s.vm(verbCredentials, name)
	if err != nil {
		return Credentials{}, err
	}
	c, err := s.api.Keyring.Issue(m.ID, time.Now())
	return Credentials{AccessKey: c.AccessKey, SecretKey: c.SecretKey, Expires: c.Expires}, err
}
