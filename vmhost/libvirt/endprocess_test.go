package libvirt

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"lodge/gateway/gatewaytest"
)

func TestEndProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	gatewaytest.Must(t, err)
	defer in.Close()
	gatewaytest.Must(t, cmd.Start())
	p, err := os.FindProcess(cmd.Process.Pid)
	gatewaytest.Must(t, err)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed
		close(ended)
	}()
	if err := endProcess(t.Context(), p); err != nil {
		t.Error(err)
	}
	<-ended
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended by %v", cmd.ProcessState)
	}
	if err := endProcess(t.Context(), p); err != nil {
		t.Errorf("the second time: %v", err)
	}
}
