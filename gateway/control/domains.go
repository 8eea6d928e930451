package control

import (
	"context"
	"net/http"
	"net/url"

	"lodge/gateway"
	"lodge/gateway/api"
)

// DomainRequest is the body that adds a custom domain.
type DomainRequest struct {
	Port        uint16 `json:"port,omitempty"`        // that the domain leads to; without it, the port of the VM's own name, or 443 with passthrough
	Passthrough bool   `json:"passthrough,omitempty"` // the VM ends TLS itself
	Mail        bool   `json:"mail,omitempty"`        // mail to anything@ the domain goes to the VM, which may send from there
}

func (s *Server) addDomain(w http.ResponseWriter, r *http.Request) error {
	var in DomainRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	to := gateway.Domain{Name: r.PathValue("domain"), Port: in.Port, Passthrough: in.Passthrough, Mail: in.Mail}
	added, err := s.as(r).AddDomain(r.Context(), r.PathValue("name"), to)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, added)
	return nil
}

func (s *Server) removeDomain(w http.ResponseWriter, r *http.Request) error {
	if err := s.as(r).RemoveDomain(r.Context(), r.PathValue("domain")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) domains(w http.ResponseWriter, r *http.Request) error {
	all, err := s.as(r).Domains(r.Context(), r.URL.Query().Get("vm"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, all)
	return nil
}

// AddDomain makes a custom domain lead to a port of a VM, once DNS proves that it belongs to the VM.
func (c *Client) AddDomain(ctx context.Context, name string, to gateway.Domain) (api.Domain, error) {
	var added api.Domain
	path, err := domainPath(to.Name)
	if err != nil {
		return added, err
	}
	err = c.onVM(ctx, http.MethodPut, name, path, DomainRequest{Port: to.Port, Passthrough: to.Passthrough, Mail: to.Mail}, &added)
	return added, err
}

// RemoveDomain ends that a custom domain leads to a VM.
func (c *Client) RemoveDomain(ctx context.Context, domain string) error {
	path, err := domainPath(domain)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, "/v1"+path, nil, nil)
}

// Domains lists the custom domains of a VM, or of all VMs for the empty name.
func (c *Client) Domains(ctx context.Context, name string) ([]api.Domain, error) {
	path := "/v1/domains"
	if name != "" {
		path += "?vm=" + url.QueryEscape(name)
	}
	var all []api.Domain
	err := c.call(ctx, http.MethodGet, path, nil, &all)
	return all, err
}

// domainPath is the last part of a path about a domain.
func domainPath(domain string) (string, error) {
	if domain == "" || domain == "." || domain == ".." { // they would make another path
		return "", gateway.Invalid("not a host name: %q", domain).WithHint("An example: www.example.com")
	}
	return "/domains/" + url.PathEscape(domain), nil
}
