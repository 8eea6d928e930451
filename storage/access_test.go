package storage

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// The access log has one line for each request, and no signature. It is off by default.
func TestAccessLog(t *testing.T) {
	var log, silent gatewaytest.Log
	h, off := newHost(t), newHost(t)
	h.log, h.accessLog = log.Logger(), true
	off.log = silent.Logger()
	off.guest("blog").doBody(t, http.MethodPut, "/bucket/key", "five!")
	g := h.guest("blog")
	g.doBody(t, http.MethodPut, "/bucket/a%20key", "five!")
	g.do(t, http.MethodGet, "/bucket/a%20key", nil)
	g.do(t, http.MethodGet, "/bucket/none", nil)
	g.do(t, http.MethodGet, "/Bad_Bucket/key?X-Amz-Meta=secret", nil)
	gatewaytest.Eventually(t, func() error { // a line is written after the answer
		if n := log.Count("s3 request served"); n < 4 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	id := "vm=blog vm_id=" + g.ID.String()
	for _, want := range []string{
		id + " remote=127.0.0.1:* method=PUT bucket=bucket object=\"a key\" status=200 bytes=0 duration=*",
		id + " remote=127.0.0.1:* method=GET bucket=bucket object=\"a key\" status=200 bytes=5 duration=*",
		id + " remote=127.0.0.1:* method=GET bucket=bucket object=none status=404 bytes=* duration=*",
	} {
		if !hasLine(log.String(), want) {
			t.Errorf("no line %q in\n%s", want, &log)
		}
	}
	if log.Count("s3 request served") != 4 || silent.String() != "" || log.Count("status=400") != 1 || log.Count("secret") != 0 {
		t.Errorf("want four requests, one of them refused, and no query in\n%s%s", &log, &silent)
	}
}

// hasLine reports whether a line of log has want; * stands for any text.
func hasLine(log, want string) bool {
	parts := strings.Split(want, "*")
	for line := range strings.Lines(log) {
		found := true
		for _, part := range parts {
			_, rest, ok := strings.Cut(line, part)
			found = found && ok
			line = rest
		}
		if found {
			return true
		}
	}
	return false
}
