package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/e2e/harness"
	"lodge/gateway/api"
)

var siblingCount = flag.Int("siblings", 4, "VMs of one template whose random values are compared")

// siblings: VMs from one template, made two at a time, share no id, no key and no random value.
func (s *suite) siblings(t *testing.T) {
	program := harness.Program(t, "lodge/e2e/drawn")
	drawn := make([]string, *siblingCount)
	t.Run("two at a time", func(t *testing.T) { // returns once its parallel tests have ended
		for i := range drawn {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				vm := s.fresh(t, fmt.Sprintf("sibling%d", i))
				vm.PutFile(t, "/tmp/drawn.go", program, "755")
				vm.PutFile(t, "/tmp/drawn.py", "testdata/drawn.py", "644")
				vm.Run(t, "sudo systemctl is-system-running --wait")
				drawn[i] = vm.Run(t, "sudo python3 /tmp/drawn.py")
			})
		}
	})
	seen := map[string]string{}
	for i, text := range drawn {
		for line := range strings.SplitSeq(text, "\n") {
			name, value, _ := strings.Cut(line, " ")
			if value == "" {
				t.Errorf("sibling%d has no %s", i, name)
			}
			if other, ok := seen[value]; ok && (name != "journal" || !strings.HasSuffix(other, fmt.Sprintf("sibling%d", i))) { // its directory has the machine id as its name
				t.Errorf("%s of sibling%d is the %s: %s", name, i, other, value)
			}
			seen[value] = fmt.Sprintf("%s of sibling%d", name, i)
		}
		if lines := strings.Count(text, "\n"); lines < 20 {
			t.Errorf("sibling%d has %d values:\n%s", i, lines+1, text)
		}
	}
	t.Logf("%d values of %d VMs, no value twice", len(seen), len(drawn))
}

// twins: a VM that was resumed ends in the same state as one that was booted, by its boot loader or
// with its kernel started directly.
func (s *suite) twins(t *testing.T) {
	script, err := os.ReadFile("testdata/state.sh")
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]*string{"resumed": new(string), "booted": new(string), "direct": new(string)}
	t.Run("make", func(t *testing.T) { // returns once its parallel tests have ended
		for name, flags := range map[string][]string{"resumed": nil, "booted": {"--boot"}, "direct": {"--direct-boot"}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				vm := s.fresh(t, name, flags...)
				*states[name] = neutral(vm.Info(t), vm.Run(t, string(script)))
			})
		}
	})
	if lines := strings.Count(*states["booted"], "\n"); lines < 20000 || !strings.HasPrefix(*states["booted"], "running\n") {
		t.Errorf("positive control: the state of the booted VM has %d lines", lines)
	}
	for _, name := range []string{"resumed", "direct"} {
		want, got := strings.Split(*states["booted"], "\n"), strings.Split(*states[name], "\n")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s differs from booted:\n%s", name, diff)
		}
	}
}

// What differs between a VM that was resumed and one that was booted: the unit that waits, the one
// whose work it does, and the boot id, which the kernel of the template has drawn.
var resumedOnly = regexp.MustCompile(`(?m)^(unit lodge-identity\.service|unit systemd-machine-id-commit\.service|mount /proc/sys/kernel/random/boot_id) .*\n`)

// ownContent has the files that are different in every VM.
var ownContent = regexp.MustCompile(`(?m)^content (/etc/(hostname|hosts|machine-id|msmtprc|lodge/(README|aliases|instance|ssh_host_ed25519_key(\.pub)?)|systemd/network/10-lodge\.network)|/var/lib/systemd/random-seed) .*$`)

// neutral replaces what is the VM's own in its state.
func neutral(vm api.VM, state string) string {
	state = resumedOnly.ReplaceAllString(state, "")
	state = ownContent.ReplaceAllString(state, "content $1")
	return strings.ReplaceAll(state, vm.Addr.String(), "ADDRESS")
}

// templateHasNoSecrets: neither the template's disk nor its memory has a key, a token or a name of
// this host or of its VMs.
func (s *suite) templateHasNoSecrets(t *testing.T) {
	var secrets []string
	for _, pattern := range []string{"ssh/id_*", "ca/*.key", "ca/*/*.key", "ca/*/*/*/*.key"} {
		files, err := filepath.Glob(filepath.Join(s.h.StateDir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			secrets = append(secrets, longLines(t, file)...)
		}
	}
	if len(secrets) < 4 {
		t.Fatalf("positive control: %d lines of secrets", len(secrets))
	}
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		secrets = append(secrets, vm.Info(t).ID.String(), strings.ReplaceAll(vm.Info(t).ID.String(), "-", ""), "BEGIN OPENSSH PRIVATE KEY-----\nb3")
	}
	host, err := os.Hostname()
	if err == nil && len(host) > 8 {
		secrets = append(secrets, host)
	}
	for name, control := range map[string]string{"disk": "lodge: waiting for an identity", "memory": "lodge: waiting for an identity"} {
		files, err := filepath.Glob(filepath.Join(s.h.StateDir, "templates", "*", name))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s of a template: %v", name, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(content, []byte(control)) {
				t.Errorf("positive control: %q is not in %s", control, file)
			}
			for _, secret := range secrets {
				if at := bytes.Index(content, []byte(secret)); at >= 0 {
					t.Errorf("%s has a secret at %d: %.20s…", file, at, secret)
				}
			}
		}
	}
}

// longLines are the lines of a file that are long enough to be part of a key.
func longLines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return len(line) < 32 || strings.Contains(line, "-----") })
}

// killMoments are the times after the beginning of lodge new at which lodged is killed.
const killMoments = 6

// killedWhileMade: lodged is killed with kill -9 while it makes a VM. After its next start the VM
// runs, or is gone without a trace.
func (s *suite) killedWhileMade(t *testing.T) {
	begun := time.Now()
	s.fresh(t, "measured")
	step := min(time.Since(begun), 3*time.Second) / killMoments
	whole := 0
	for moment := range killMoments {
		name := fmt.Sprintf("kill%d", moment)
		var client sync.WaitGroup
		client.Go(func() { s.h.TryLodge(t, "new", name) })
		<-time.After(step * time.Duration(moment)) // any moment will do
		s.daemon.Kill(t)
		client.Wait()
		s.daemon = s.h.StartDaemon(t)
		harness.Eventually(t, name+" runs or is gone", 2*time.Minute, func() error {
			r := s.h.TryLodge(t, "show", name)
			if r.Code != 0 && strings.Contains(r.Stderr, "no VM") {
				return nil
			}
			if r.Code == 0 && strings.Contains(r.Stdout, "running") {
				return nil
			}
			return errors.New(r.Text())
		})
		if r := s.h.TryLodge(t, "wait", name); r.Code == 0 {
			whole++
			if got := s.h.VM(name).Run(t, "hostname"); got != name {
				t.Errorf("%s has the name %s", name, got)
			}
			s.h.Lodge(t, "rm", "--yes", name)
		}
		s.leftNothing(t, name)
	}
	if t.Logf("%d of %d VMs were whole", whole, killMoments); whole == 0 {
		t.Error("no kill left a VM: the moments are too early")
	}
}

// leftNothing checks that there are as many disks, taps, domains and copies of memory as VMs.
func (s *suite) leftNothing(t *testing.T, name string) {
	t.Helper()
	harness.Eventually(t, "nothing of "+name+" is left", time.Minute, func() error {
		vms := len(harness.JSON[[]api.VM](t, s.h, "ls"))
		count := func(pattern string) int {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			return len(files)
		}
		domains := strings.Fields(s.h.Run(t, nil, "virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name").Stdout)
		disks := filepath.Join(s.h.StateDir, "disks")
		got := []int{count("/sys/class/net/lg*"), len(domains), count(disks + "/*.seed"), count(disks+"/*.qcow2") + count(disks+"/*.img"), count(disks + "/*.memory")}
		if want := []int{vms, vms, vms, vms, 0}; !slices.Equal(got, want) {
			return fmt.Errorf("taps, domains, seeds, disks, memories: %v, want %v", got, want)
		}
		return nil
	})
}
