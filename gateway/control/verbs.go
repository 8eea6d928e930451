package control

import (
	"net/http"
	"time"

	"lodge/gateway"
)

// vm finds the VM that the path names.
func (s *Server) vm(r *http.Request) (gateway.VM, error) {
	name := r.PathValue("name")
	m, ok := s.Directory.ByName(name)
	if !ok {
		return gateway.VM{}, gateway.NotFound(name)
	}
	return m, nil
}

// info completes a machine by what is seen of it.
func (s *Server) info(r *http.Request, m gateway.VM) *Info {
	return &Info{
		VM:         m,
		Status:     s.Observer.Status(r.Context(), m.ID),
		URL:        s.Web.URL(m, gateway.DefaultPort),
		MailDomain: m.Name + "." + s.Domain,
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	h := Health{Version: s.Version, Domain: s.Domain, Ready: true, VMs: len(s.Directory.All())}
	if s.Ready != nil {
		if err := s.Ready(); err != nil {
			h.Ready, h.Reason = false, err.Error()
		}
	}
	answer(w, http.StatusOK, h)
	return nil
}

func (s *Server) root(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, err := w.Write(s.Web.RootPEM())
	return err
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	all := []*Info{} // not nil: an empty list is [] in JSON
	for _, m := range s.Directory.All() {
		all = append(all, s.info(r, m))
	}
	answer(w, http.StatusOK, all)
	return nil
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) error {
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, s.info(r, m))
	return nil
}

// changed answers with the VM as it is after a verb.
func (s *Server) changed(w http.ResponseWriter, r *http.Request, id gateway.ID) error {
	m, ok := s.Directory.ByID(id)
	if !ok {
		return gateway.Errorf(gateway.KindNotFound, "the VM was removed meanwhile")
	}
	answer(w, http.StatusOK, s.info(r, m))
	return nil
}

func (s *Server) start(w http.ResponseWriter, r *http.Request) error {
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	if err := s.Machines.Start(r.Context(), m.ID); err != nil {
		return err
	}
	return s.changed(w, r, m.ID)
}

func (s *Server) stopVM(w http.ResponseWriter, r *http.Request) error {
	var ask StopRequest
	if err := decode(w, r, maxBodyBytes, &ask); err != nil {
		return err
	}
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	if err := s.Machines.Stop(r.Context(), m.ID, ask.Force); err != nil {
		return err
	}
	return s.changed(w, r, m.ID)
}

func (s *Server) restart(w http.ResponseWriter, r *http.Request) error {
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	if err := s.Machines.Restart(r.Context(), m.ID); err != nil {
		return err
	}
	return s.changed(w, r, m.ID)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	if err := s.Machines.Remove(r.Context(), m.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) ssh(w http.ResponseWriter, r *http.Request) error {
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	if m.Desired == gateway.Stopped {
		return gateway.Errorf(gateway.KindConflict, "%s is stopped", m.Name).WithHint("Start it first: lodge start %s", m.Name)
	}
	access, err := s.Observer.SSH(m.ID)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, access)
	return nil
}

func (s *Server) share(w http.ResponseWriter, r *http.Request) error {
	var ask gateway.Share
	if err := decode(w, r, maxBodyBytes, &ask); err != nil {
		return err
	}
	if ask.Visibility != gateway.Public && ask.Visibility != gateway.Private {
		return gateway.Invalid("not a visibility: %q", ask.Visibility).WithHint("A port is public or private.")
	}
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	m, err = s.Directory.Update(r.Context(), m.ID, func(m *gateway.VM) error {
		m.Shares = m.WithShare(ask.Port, ask.Visibility)
		return nil
	})
	if err != nil {
		return err
	}
	info := s.info(r, m)
	info.URL = s.Web.URL(m, ask.Port)
	answer(w, http.StatusOK, info)
	return nil
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	var ask LoginRequest
	if err := decode(w, r, maxBodyBytes, &ask); err != nil {
		return err
	}
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	url, err := s.Web.LoginURL(r.Context(), m.ID, ask.Person)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, LoginAnswer{URL: url})
	return nil
}

func (s *Server) credentials(w http.ResponseWriter, r *http.Request) error {
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	c, err := s.Keyring.Issue(m.ID, time.Now())
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, CredentialsAnswer{AccessKey: c.AccessKey, SecretKey: c.SecretKey, Expires: c.Expires})
	return nil
}
