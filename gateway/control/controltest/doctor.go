package controltest

import (
	"context"

	"lodge/gateway/api"
)

// Examine implements api.Doctor.
func (h *Host) Examine(context.Context) []api.Finding {
	return []api.Finding{
		{Check: "dns example.org", Grade: api.Fine, Text: "leads to this host"},
		{Check: "port 443", Grade: api.Broken, Text: "connection refused", Fix: "Open port 443."},
	}
}
