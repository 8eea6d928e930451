package metadata

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
)

// role is the name under which EC2's paths show a VM's credentials.
const role = "lodge"

// region is for tools that need one; there is no other.
const region = gateway.S3Region

// A leaf is one value of EC2's tree below /latest/.
type leaf struct {
	path  string
	value func(m gateway.VM) (string, error)
}

// tree returns all leaves, in the order of the listings.
func (s *Server) tree() []leaf {
	hostname := func(m gateway.VM) (string, error) { return m.Name + "." + s.Domain, nil }
	constant := func(text string) func(gateway.VM) (string, error) {
		return func(gateway.VM) (string, error) { return text, nil }
	}
	return []leaf{
		{"meta-data/hostname", hostname},
		{"meta-data/iam/security-credentials/" + role, s.credentials},
		{"meta-data/instance-id", func(m gateway.VM) (string, error) { return m.ID.String(), nil }},
		{"meta-data/local-hostname", hostname},
		{"meta-data/local-ipv4", func(m gateway.VM) (string, error) { return m.Addr.String(), nil }},
		{"meta-data/mac", func(m gateway.VM) (string, error) { return m.MAC().String(), nil }},
		{"meta-data/placement/availability-zone", constant(region + "a")},
		{"meta-data/placement/region", constant(region)},
	}
}

// metadata answers below /latest: a leaf with its value, a directory with its names, one per line
// and "/" behind those of directories, as EC2 does. A slash at the end makes no difference
// (botocore asks for a leaf with one).
func (s *Server) metadata(w http.ResponseWriter, r *http.Request, m gateway.VM) *refusal {
	if !s.valid(r.Header.Get(tokenHeader), m.ID) {
		return refuse(http.StatusUnauthorized, "The header %s must hold a token; PUT %s returns one (IMDSv2).", tokenHeader, tokenPath)
	}
	path := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/latest"), "/"), "/")
	var names []string
	for _, leaf := range s.tree() {
		if leaf.path == path {
			return s.giveLeaf(w, r, m, leaf)
		}
		if rest, ok := below(path, leaf.path); ok {
			if first, _, dir := strings.Cut(rest, "/"); dir {
				rest = first + "/"
			}
			names = append(names, rest)
		}
	}
	if names == nil {
		return refuse(http.StatusNotFound, "Not found. See the list at /latest/meta-data/.")
	}
	text(w, strings.Join(slices.Compact(names), "\n"))
	return nil
}

// below returns the rest of path behind dir.
func below(dir, path string) (rest string, ok bool) {
	if dir == "" {
		return path, true
	}
	return strings.CutPrefix(path, dir+"/")
}

func (s *Server) giveLeaf(w http.ResponseWriter, r *http.Request, m gateway.VM, leaf leaf) *refusal {
	value, err := leaf.value(m)
	if err != nil {
		s.Logger.ErrorContext(r.Context(), "metadata not made", "vm", m.Name, "path", leaf.path, "err", err)
		return refuse(http.StatusServiceUnavailable, "Temporarily unavailable.")
	}
	text(w, value)
	return nil
}

// credentials are EC2's form of S3 credentials. SDKs require a Token and do not send an empty one.
// S3 servers refuse a token beside keys that need none.
func (s *Server) credentials(m gateway.VM) (string, error) {
	now := s.now().UTC().Truncate(time.Second)
	minted, err := s.Keyring.Issue(m.ID, now)
	if err != nil {
		return "", err
	}
	raw, err := json.MarshalIndent(struct {
		Code            string
		LastUpdated     time.Time
		Type            string
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		Token           string // always empty
		Expiration      time.Time
	}{"Success", now, "AWS-HMAC", minted.AccessKey, minted.SecretKey, "", minted.Expires}, "", "  ")
	return string(raw), err
}
