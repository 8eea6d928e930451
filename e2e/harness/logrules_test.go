package harness_test

import (
	"strings"
	"testing"

	"lodge/e2e/harness"
)

func TestCheckLogFindsWhatBreaksTheRules(t *testing.T) {
	const start = "time=2026-11-20T10:00:00Z level=INFO "
	for line, bad := range map[string]bool{
		start + `msg="message delivered" vm=blog queue_id=abc bytes=17 duration=12ms`:                false,
		start + `msg="VM started" vm=blog vm_id=a24ff629-0000-4000-8000-000000000001 tap=lg0000000a`: false,
		start + `msg="message accepted" vm=a24ff629-0000-4000-8000-000000000001`:                     true,
		start + `msg="tap repaired" vm=lg0000000a`:                                                   true,
		start + `msg="tap repaired" tap=blog`:                                                        true,
		start + `msg="identity token issued" vm=blog audience="https://x/?a=b" jti=MUIAW7EO`:         false,
		start + `msg="x" vm_id=blog`:                                                                 true,
		start + `msg="request served" colour=red`:                                                    true,
		start + `msg="object stored" bytes=17KiB`:                                                    true,
		start + `msg="failed with code=7"`:                                                           true,
		start + `msg="dial failed" err="dial tcp: a \"quoted\" = sign"`:                              false,
		"panic: a stack of another kind, vm=lg0000000a":                                              false,
	} {
		if faults := harness.CheckLog(line + "\n"); (len(faults) > 0) != bad {
			t.Errorf("%s\nfaults: %s", line, strings.Join(faults, "; "))
		}
	}
}
