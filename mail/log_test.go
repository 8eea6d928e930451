package mail

import (
	"fmt"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// A mail has the same keys with the same values in every line of the log.
func TestLogOfOneMail(t *testing.T) {
	g := newGuest(t)
	g.up(t)
	f, vm := withGuest(t, t.TempDir(), g)
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<x@"+vm.Name+"."+domain+">", "250")
	c.ask("DATA", "354")
	c.ask("Subject: x\r\n\r\nbody\r\n.", "250")
	m := f.list(t, vm)[0]
	f.awaitDelivery(t, vm, m.QueueID)
	keys := []string{
		"vm=" + vm.Name, "vm_id=" + vm.ID.String(), "queue_id=" + m.QueueID, fmt.Sprint("bytes=", m.Bytes),
	}
	for _, message := range []string{"message accepted", "message delivered"} {
		line := ""
		gatewaytest.WaitFor(t, message, func() bool {
			for l := range strings.Lines(f.log.String()) {
				if strings.Contains(l, message) {
					line = strings.TrimSpace(l)
				}
			}
			return line != ""
		})
		for _, key := range keys {
			if !strings.Contains(line+" ", " "+key+" ") {
				t.Errorf("no %s in %s", key, line)
			}
		}
	}
}
