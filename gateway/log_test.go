package gateway_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"lodge/gateway"
)

func TestLogVM(t *testing.T) {
	id := gateway.NewID()
	for name, test := range map[string]struct {
		vm   gateway.Identity
		want string
	}{
		"known":   {gateway.Identity{ID: id, Name: "blog"}, " msg=m vm=blog vm_id=" + id.String() + " bytes=1\n"},
		"unknown": {gateway.Identity{}, " msg=m bytes=1\n"},
	} {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		log.Info("m", gateway.LogVM(test.vm), "bytes", 1)
		log.With(gateway.LogVM(test.vm)).Info("m", "bytes", 1)
		if got := out.String(); strings.Count(got, test.want) != 2 {
			t.Errorf("%s: got %q, want twice %q", name, got, test.want)
		}
	}
}
