package controltest

import (
	"context"
	"encoding/pem"
	"fmt"
	"strings"

	"lodge/gateway"
)

// LoginURL implements api.Web.
func (h *Host) LoginURL(_ context.Context, id gateway.ID, _ gateway.Principal) (string, error) {
	if id == (gateway.ID{}) {
		return "https://lodge.localhost/.lodge/login?token=" + LoginSecret, nil
	}
	m, _ := h.Directory.ByID(id)
	return h.URL(m, gateway.DefaultPort) + "/.lodge/login?token=" + LoginSecret, nil
}

// URL implements api.Web.
func (h *Host) URL(m gateway.VM, port uint16) string {
	if port == gateway.DefaultPort {
		return "https://" + m.Name + ".lodge.localhost"
	}
	return fmt.Sprintf("https://%d-%s.lodge.localhost", port, m.Name)
}

// DomainURL implements api.Web. Those below certified.example have certificates.
func (h *Host) DomainURL(domain string) (string, bool) {
	return "https://" + domain, strings.HasSuffix(domain, ".certified.example")
}

// RequestURL implements api.Web.
func (h *Host) RequestURL(id string) string {
	return "https://lodge.localhost/.lodge/requests?id=" + id
}

// RootPEM implements api.Web.
func (h *Host) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not a real one")})
}

// Probe implements api.Ports.
func (h *Host) Probe(context.Context, gateway.VM) (uint16, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return 8000, h.listening
}

// Listening implements api.Ports.
func (h *Host) Listening(_ context.Context, _ gateway.VM, ports []uint16) []uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.listening {
		return nil
	}
	return ports
}
