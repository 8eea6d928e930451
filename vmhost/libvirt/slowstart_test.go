package libvirt

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestSlowStartNamesItsCause(t *testing.T) {
	dir := t.TempDir()
	device, proc := filepath.Join(dir, "kvm"), filepath.Join(dir, "proc")
	account, err := user.Lookup(qemuUser)
	if err != nil {
		t.Skip("libvirt is not installed")
	}
	group, err := strconv.Atoi(account.Gid)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(device, nil, 0o600))
	for name, tt := range map[string]struct {
		mode   os.FileMode
		gid    int
		stat   string
		causes []string // parts of the cause and of the remedy; none if empty
	}{
		"as udev makes it": {0o660, group, "(bash) S 1", nil},
		"open to all":      {0o666, 0, "(bash) S 1", nil},
		"root's alone":     {0o600, 0, "(bash) S 1", []string{"cannot open " + device, "chmod 660 " + device}},
		"no write":         {0o640, group, "(bash) S 1", []string{"cannot open " + device, "chgrp kvm " + device}},
		"orphan":           {0o660, group, "(qemu-system-x86) Z 1", []string{"does not reap orphans", "--init"}},
		"another's child":  {0o660, group, "(qemu-system-x86) Z 71", nil},
		"QEMU that runs":   {0o660, group, "(qemu-system-x86) S 1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			gatewaytest.Must(t, os.Chown(device, 0, tt.gid))
			gatewaytest.Must(t, os.Chmod(device, tt.mode))
			gatewaytest.Must(t, os.MkdirAll(filepath.Join(proc, "70"), 0o755))
			gatewaytest.Must(t, os.WriteFile(filepath.Join(proc, "70", "stat"), []byte("70 "+tt.stat+" 0 0"), 0o600))
			cause, remedy := slowStart(device, proc)
			if (cause != "") != (tt.causes != nil) {
				t.Fatalf("got %q", cause)
			}
			for i, want := range tt.causes {
				if got := []string{cause, remedy}[i]; !strings.Contains(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}

// A call that times out is KindUnavailable with a hint, whatever the cause.
func TestTimeoutIsUnavailable(t *testing.T) {
	for _, what := range []string{startTheVM, "undefine the VM"} {
		err := explainTimeout(what, context.DeadlineExceeded)
		if gateway.KindOf(err) != gateway.KindUnavailable || !strings.HasPrefix(err.Error(), fmt.Sprintf("libvirtd did not %s in time", what)) {
			t.Errorf("got %v", err)
		}
	}
}
