package main

import (
	stdlog "log"
	"os"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// A line of a library, with text of a guest, is one short value of one line.
func TestLibrariesAreCaught(t *testing.T) {
	flags := stdlog.Flags()
	t.Cleanup(func() {
		stdlog.SetOutput(os.Stderr)
		stdlog.SetFlags(flags)
	})
	log := new(gatewaytest.Log)
	catchLibraries(log.Logger())
	stdlog.Print("Unsolicited response\nlevel=ERROR msg=\"forged\"\n" + strings.Repeat("x", 4096))
	text := log.String()
	if strings.Count(text, "\n") != 1 || !strings.Contains(text, "library logged") || len(text) > 600 {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}
