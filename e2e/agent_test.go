package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway/api"
)

// wrongAgent takes the place of the guest's agent: it answers libvirtd's first question as it should
// (QEMU Guest Agent Protocol, guest-sync), and then as its argument says.
const wrongAgent = `cat >wrong-agent <<'END'
import json, os, sys, time
port = os.open('/dev/virtio-ports/org.qemu.guest_agent.0', os.O_RDWR)
def write(data):
    while data:
        data = data[os.write(port, data):]
open('/run/asked', 'w').close()
text = b''
while True:
    read = os.read(port, 4096)
    if not read:
        time.sleep(0.1) # libvirtd has not connected yet
    text += read
    while b'\n' in text:
        line, text = text.split(b'\n', 1)
        try:
            command = json.loads(line.strip(b'\xff'))
        except ValueError:
            continue
        open('/run/asked', 'a').write(command['execute'] + '\n')
        if command['execute'].startswith('guest-sync'):
            write(b'{"return": %d}\n' % command['arguments']['id'])
        elif sys.argv[1] == 'lies':
            write(b'{"return": 1}\n')
        elif sys.argv[1] == 'floods':
            write(b'x' * (11 << 20) + b'\n')
        elif sys.argv[1] == 'babbles':
            write(b'{"return": {"return": [null, "\\u0000"]}}\n')
END
`

// agentPatience is much more than the time that a guest gets to freeze its file systems.
const agentPatience = time.Minute

// wrongAgents: a guest whose agent hangs, floods the host, or answers nonsense gets no quiesced
// checkpoint, and runs on. One that lies gets a checkpoint like any other. The next agent works again.
func (s *suite) wrongAgents(t *testing.T, vm *harness.VM) {
	t.Helper()
	before := len(harness.JSON[[]api.Checkpoint](t, s.h, "checkpoints", vm.Name))
	for _, agent := range []string{"hangs", "floods", "babbles", "lies"} {
		vm.Run(t, wrongAgent+"sudo systemctl stop qemu-guest-agent; sudo rm -f /run/asked; sudo systemd-run --quiet --collect --unit=wrong-agent python3 $PWD/wrong-agent "+agent+
			"; until test -e /run/asked; do sleep 0.1; done")
		var r harness.Result
		harness.Eventually(t, "the agent that "+agent+" is asked to freeze", 5*agentPatience, func() error {
			begun := time.Now()
			r = s.h.TryLodge(t, "checkpoint", vm.Name, "by-"+agent, "--quiesce")
			if took := time.Since(begun); took > agentPatience {
				t.Errorf("an agent that %s held the checkpoint up for %s", agent, took)
			}
			if asked := vm.Run(t, "cat /run/asked"); !strings.Contains(asked, "guest-fsfreeze-freeze") {
				return errors.New(asked)
			}
			return nil
		})
		vm.Run(t, "sudo systemctl stop wrong-agent; sudo systemctl start qemu-guest-agent; echo written >written; sync")
		want := before
		if agent == "lies" {
			want++
		} else {
			contains(t, "an agent that "+agent, r.Text(), "agent", "--quiesce")
		}
		if all := harness.JSON[[]api.Checkpoint](t, s.h, "checkpoints", vm.Name); len(all) != want {
			t.Errorf("with an agent that %s there are %d checkpoints, want %d: %s", agent, len(all), want, r.Text())
		}
	}
	harness.Eventually(t, "the agent works again", agentPatience, func() error {
		if r := s.h.TryLodge(t, "checkpoint", vm.Name, "by-the-agent", "--quiesce"); r.Code != 0 {
			return errors.New(r.Text())
		}
		return nil
	})
	s.h.Lodge(t, "checkpoint", "rm", vm.Name, "by-lies", "by-the-agent")
	vm.Run(t, "rm -f wrong-agent written; sync")
}
