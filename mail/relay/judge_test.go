package relay

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/mail/verdict"
)

// judge checks a message of blog with the records of a zone.
func judge(t *testing.T, zone, message, remote string) verdict.Verdict {
	t.Helper()
	return judgeFrom(t, zone, "blog."+us, message, remote)
}

// judgeFrom checks a message whose envelope is from a domain.
func judgeFrom(t *testing.T, zone, domain, message, remote string) verdict.Verdict {
	t.Helper()
	stored := new(bytes.Buffer)
	f := verdict.NewFilter(stored, "receiver.example")
	_, err := io.WriteString(f, message)
	gatewaytest.Must(t, err)
	header, err := f.End()
	gatewaytest.Must(t, err)
	return verdict.New(verdict.NewResolver("", zone)).Check(t.Context(), verdict.Message{
		Remote: netip.MustParseAddr(remote), Helo: us, From: "app", Domain: domain, Header: header, Content: f.Original(bytes.NewReader(stored.Bytes())),
	})
}
