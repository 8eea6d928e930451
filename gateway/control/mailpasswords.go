package control

import (
	"context"
	"net/http"

	"lodge/gateway/api"
)

// MailPasswordRequest is the body that makes a password for a VM's mail.
type MailPasswordRequest struct {
	Label string `json:"label,omitempty"` // what it is for; without one it gets one
}

func (s *Server) mailPasswordRoutes() []route {
	const vm = "/v1/vms/{name}"
	return []route{
		{"POST", vm + "/mail-passwords", s.newMailPassword, MailPasswordRequest{}, api.MailPassword{}, "Makes a password by which IMAP opens the VM's mail from outside. It is shown in this answer alone."},
		{"GET", vm + "/mail-passwords", named(s, api.Session.MailPasswords), nil, []api.MailPassword{}, "Lists these passwords, without what they are."},
		{"DELETE", vm + "/mail-passwords/{label}", s.removeMailPassword, nil, nil, "Removes such a password, and ends what is open by it."},
	}
}

func (s *Server) newMailPassword(w http.ResponseWriter, r *http.Request) error {
	var in MailPasswordRequest
	if err := decode(w, r, maxSpecBytes, &in); err != nil {
		return err
	}
	made, err := s.as(r).NewMailPassword(r.Context(), r.PathValue("name"), in.Label)
	return answerOr(w, made, err)
}

func (s *Server) removeMailPassword(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).RemoveMailPassword(r.Context(), r.PathValue("name"), r.PathValue("label")))
}

// NewMailPassword makes a password for a VM's mail.
func (c *Client) NewMailPassword(ctx context.Context, name, label string) (api.MailPassword, error) {
	var made api.MailPassword
	err := c.onVM(ctx, http.MethodPost, name, "/mail-passwords", MailPasswordRequest{label}, &made)
	return made, err
}

// MailPasswords lists these passwords.
func (c *Client) MailPasswords(ctx context.Context, name string) ([]api.MailPassword, error) {
	var all []api.MailPassword
	err := c.onVM(ctx, http.MethodGet, name, "/mail-passwords", nil, &all)
	return all, err
}

// RemoveMailPassword removes one.
func (c *Client) RemoveMailPassword(ctx context.Context, name, label string) error {
	path, err := vmPath(name, "/mail-passwords/")
	if err != nil {
		return err
	}
	return c.onPath(ctx, http.MethodDelete, path, label, "", nil, nil)
}
