package metadata

import (
	"encoding/json"
	"net/http"

	"lodge/gateway"
)

// selfPath is the path of the VM's record.
const selfPath = "/lodge/v1/self"

// Self is a VM's record as the VM can read it.
type Self struct {
	ID      gateway.ID `json:"id"`
	Name    string     `json:"name"`
	Address string     `json:"address"` // its own; only the host reaches it
	gateway.Size
	URL        string        `json:"url"`         // of its page, from outside
	MailDomain string        `json:"mail_domain"` // mail to anything@ this lands in ~/Maildir
	S3         SelfS3        `json:"s3"`
	Shares     []SharedPorts `json:"shares"` // all other ports are private
}

// SelfS3 is the configuration of S3 tools that have none.
type SelfS3 struct {
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
}

// SharedPorts is one port that others may open; port 0 is the VM's page, whichever port that leads
// to. Who these are is not shown.
type SharedPorts struct {
	Port       uint16             `json:"port"`
	Visibility gateway.Visibility `json:"visibility"`
	URL        string             `json:"url"`
}

func (s *Server) self(w http.ResponseWriter, r *http.Request, m gateway.VM) *refusal {
	if refused := checkHeader(r); refused != nil {
		return refused
	}
	self := Self{
		ID: m.ID, Name: m.Name, Address: m.Addr.String(),
		Size:       m.Size,
		URL:        s.URL(m, gateway.DefaultPort),
		MailDomain: m.Name + "." + s.Domain,
		S3:         SelfS3{Endpoint: "http://" + gateway.S3Host, Region: region},
		Shares:     []SharedPorts{}, // not nil: an empty list is [] in JSON
	}
	for _, share := range m.Shares {
		self.Shares = append(self.Shares, SharedPorts{share.Port, share.Visibility, s.URL(m, share.Port)})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(self) // a write error means that the guest has closed the connection
	return nil
}
