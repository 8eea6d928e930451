package metadata

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"time"

	"lodge/gateway"
)

// Names of IMDSv2 (EC2 User Guide, "Use the Instance Metadata Service").
const (
	tokenPath   = "/latest/api/token"
	tokenHeader = "X-aws-ec2-metadata-token"
	ttlHeader   = "X-aws-ec2-metadata-token-ttl-seconds"
	maxTTL      = 21600
)

func (s *Server) giveToken(w http.ResponseWriter, r *http.Request, m gateway.VM) *refusal {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", http.MethodPut)
		return refuse(http.StatusMethodNotAllowed, "Method not allowed: use PUT.")
	}
	ttl, err := strconv.ParseUint(r.Header.Get(ttlHeader), 10, 16)
	if err != nil || ttl < 1 || ttl > maxTTL {
		return refuse(http.StatusBadRequest, "The header %s must be the token's life in seconds, 1 to %d.", ttlHeader, maxTTL)
	}
	expires := s.now().Add(time.Duration(ttl) * time.Second) //nolint:gosec // at most 21600
	w.Header().Set(ttlHeader, strconv.FormatUint(ttl, 10))
	text(w, s.token(m.ID, expires))
	return nil
}

// token returns a token: its expiry in Unix seconds, and an HMAC-SHA256 of the expiry and the VM.
// It is valid for that VM only.
func (s *Server) token(id gateway.ID, expires time.Time) string {
	claim := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix())) //nolint:gosec // after 1970
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write(id[:])
	mac.Write(claim)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(claim))
}

// valid reports whether token was issued by this Server, for this VM, and has not expired.
func (s *Server) valid(token string, id gateway.ID) bool {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+sha256.Size {
		return false
	}
	expires := time.Unix(int64(binary.BigEndian.Uint64(raw)), 0) //nolint:gosec // the next line compares the HMAC
	return hmac.Equal([]byte(token), []byte(s.token(id, expires))) && s.now().Before(expires)
}
