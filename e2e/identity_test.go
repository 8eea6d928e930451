package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"lodge/e2e/harness"
	"lodge/gateway/metadata"
)

// selfScript reads the VM's own record from the gateway.
const selfScript = `curl -sS -m 10 -H 'Lodge-Request: 1' http://169.254.169.254/lodge/v1/self`

// questions sends every request about identity from both VMs.
func (s *suite) questions(t *testing.T) {
	s.both(t, func(t *testing.T, me, _ *harness.VM) {
		info := me.Info(t)
		var self metadata.Self
		if err := json.Unmarshal([]byte(me.Run(t, selfScript)), &self); err != nil {
			t.Fatal(err)
		}
		if self.Name != me.Name || self.ID != info.ID || self.Address != info.Addr.String() || self.URL != info.URL || self.MailDomain != info.MailDomain {
			t.Errorf("the gateway identifies %s as %+v; want %+v", me.Name, self, info)
		}
		got := me.Run(t, `
			token=$(curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
			for path in instance-id hostname local-ipv4 mac; do
				curl -sSf -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/$path; echo
			done
			hostname; getent ahostsv4 $(hostname) | awk 'NR == 1 {print $1}'; ip -o -4 address show dev eth0 | grep -o 'inet [^ ]*'
			getent ahostsv4 s3.lodge.internal | awk 'NR == 1 {print $1}'
			cat /sys/class/net/eth0/address`)
		mac := me.Identity(t).MAC().String()
		want := strings.Join([]string{
			info.ID.String(), info.MailDomain, info.Addr.String(), mac,
			me.Name, "127.0.1.1", "inet " + info.Addr.String() + "/32", "169.254.169.254", mac,
		}, "\n")
		if got != want {
			t.Errorf("the metadata of %s is\n%s\nwant\n%s", me.Name, got, want)
		}
		s.provesItself(t, me)
		s.misledQuestions(t, me)
	})
}

// provesItself has the VM get a token, and verifies it as a service elsewhere does.
func (s *suite) provesItself(t *testing.T, me *harness.VM) {
	t.Helper()
	got := me.Run(t, `curl -sSf -m 10 -X PUT -H 'Lodge-Request: 1' -H 'Accept: application/jwt' \
		'http://169.254.169.254/lodge/v1/token?audience=https://service.example'`)
	ctx := oidc.ClientContext(t.Context(), s.client())
	provider, err := oidc.NewProvider(ctx, "https://lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	token, err := provider.Verifier(&oidc.Config{ClientID: "https://service.example"}).Verify(ctx, got)
	if err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if want := "vm:" + me.Info(t).ID.String(); token.Subject != want {
		t.Errorf("%s proves that it is %s, want %s", me.Name, token.Subject, want)
	}
	contains(t, "the issuer, seen from "+me.Name, me.Run(t, `curl -sSf -m 10 --resolve lodge.localhost:443:169.254.169.254 \
		https://lodge.localhost/.well-known/openid-configuration`), `"issuer":"https://lodge.localhost"`)
}

// misledQuestions are requests that another party could make an app in the VM send.
func (s *suite) misledQuestions(t *testing.T, me *harness.VM) {
	t.Helper()
	got := me.Run(t, `
		ask() { curl -sS -m 10 -o /dev/null -w '%{http_code} ' "$@"; }
		base=http://169.254.169.254
		ask $base/lodge/v1/self
		ask $base/latest/meta-data/iam/security-credentials/lodge
		ask -H 'Lodge-Request: 1' -H 'X-Forwarded-For: 1.2.3.4' $base/lodge/v1/self
		ask -H 'Lodge-Request: 1' -H 'Host: evil.example' $base/lodge/v1/self
		ask -X PUT -H 'Via: 1.1 proxy' -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $base/latest/api/token
		ask -X PUT "$base/lodge/v1/token?audience=x"
		ask -X PUT -H 'Lodge-Request: 1' -H 'X-Forwarded-For: 1.2.3.4' "$base/lodge/v1/token?audience=x"
		ask -H 'Lodge-Request: 1' "$base/lodge/v1/token?audience=x"
		ask -H 'Lodge-Request: 1' $base/lodge/v1/self`)
	if want := "403 401 403 421 403 403 403 405 200 "; got+" " != want && got != want {
		t.Errorf("misled questions of %s got %q, want %q", me.Name, got, want)
	}
}

// impostors has each of two VMs impersonate the other on the wire, with a positive control before
// and after.
func (s *suite) impostors(t *testing.T) {
	closed := s.hostListener(t)
	one, two := s.fresh(t, "impostor"), s.fresh(t, "victim")
	for _, vm := range []*harness.VM{one, two} {
		vm.Run(t, "sudo systemd-run --quiet --unit=page python3 -m http.server 8000")
	}
	each(t, one, two, func(t *testing.T, me, other *harness.VM) {
		mine, theirs := me.Identity(t), other.Identity(t)
		honest := func(when string) {
			t.Helper()
			contains(t, "an honest question "+when, me.Run(t, selfScript), fmt.Sprintf("%q", me.Name))
		}
		honest("before")
		vars := fmt.Sprintf("mine=%s theirs=%s mymac=%s theirmac=%s hostport=%s theirname=%s domain=%s\n",
			mine.Addr, theirs.Addr, mine.MAC(), theirs.MAC(), closed, other.Name, s.h.Domain)
		t.Run("try", func(t *testing.T) { // returns once its parallel tests have ended
			for _, try := range impostures() {
				t.Run(try.name, func(t *testing.T) {
					if !try.disguised {
						t.Parallel()
					}
					out := me.Run(t, vars+impostorLibrary+try.script)
					if out != "nothing" {
						t.Errorf("%s as %s got through:\n%s", me.Name, other.Name, out)
					}
				})
			}
		})
		honest("after")
		contains(t, "the other at the same time", other.Run(t, selfScript), fmt.Sprintf("%q", other.Name))
	})
}

// impostorLibrary has the functions of the scripts below. Each script prints "nothing" when it got
// no answer.
const impostorLibrary = `
set +e
try() { timeout 5 "$@" 2>/dev/null; }
verdict() { if [ -z "$1" ]; then echo nothing; else printf 'ANSWER: %s\n' "$1"; fi; }
self() { try curl -s -m 3 "$@" -H 'Lodge-Request: 1' http://169.254.169.254/lodge/v1/self; }
`

// imposture is a script for one VM that tries to impersonate or to reach the other.
type imposture struct {
	name      string
	disguised bool // the VM has other addresses meanwhile, so nothing else may run
	script    string
}

func impostures() []imposture {
	return []imposture{
		{"source address", true, `
			sudo ip address add $theirs/32 dev eth0
			got=$(self --interface $theirs)
			sudo ip address del $theirs/32 dev eth0
			verdict "$got"`},
		{"source address over UDP", true, `
			sudo ip address add $theirs/32 dev eth0
			got=$(try python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0)); s.settimeout(3)
s.sendto(bytes.fromhex("123401000001000000000000027333056c6f64676508696e7465726e616c0000010001"), ("169.254.169.254", 53))
print(s.recv(512))' $theirs)
			sudo ip address del $theirs/32 dev eth0
			verdict "$got"`},
		{"hardware address", true, `
			sudo ip link set dev eth0 address $theirmac
			got=$(self)
			sudo ip link set dev eth0 address $mymac
			verdict "$got"`},
		{"both addresses", true, `
			sudo ip address add $theirs/32 dev eth0
			sudo ip link set dev eth0 address $theirmac
			got=$(self --interface $theirs)
			sudo ip link set dev eth0 address $mymac
			sudo ip address del $theirs/32 dev eth0
			verdict "$got"`},
		{"the other's services", false, `verdict "$(try curl -s -m 3 http://$theirs:8000/)$(try bash -c "head -c 4 </dev/tcp/$theirs/22")"`},
		{"the other by ping", false, `verdict "$(try ping -c 1 -W 3 $theirs | grep 'bytes from')"`},
		{"the other as a router", false, `
			sudo ip route add 203.0.113.7/32 via $theirs dev eth0 onlink
			got=$(try curl -s -m 3 http://203.0.113.7/; ip neigh show to $theirs dev eth0 | grep -E 'REACHABLE|STALE|DELAY')
			sudo ip route del 203.0.113.7/32
			sudo ip neigh flush to $theirs dev eth0
			verdict "$got"`},
		{"the other's gateway by routing", false, `
			sudo ip route add 198.51.100.1/32 via 169.254.169.254 dev eth0 onlink
			got=$(for to in $theirs 198.51.100.1; do
				try curl -s -m 3 -H 'Lodge-Request: 1' -H 'Host: 169.254.169.254' http://$to/lodge/v1/self; done)
			sudo ip route del 198.51.100.1/32
			verdict "$got"`},
		{"the host's loopback", false, `
			sudo sysctl -qw net.ipv4.conf.eth0.route_localnet=1
			sudo ip route add 127.9.9.9/32 via 169.254.169.254 dev eth0 onlink
			got=$(for port in 25 80 443; do try bash -c "exec 3<>/dev/tcp/127.9.9.9/$port && echo $port open"; done)
			sudo ip route del 127.9.9.9/32
			verdict "$got"`},
		{"a service of the host's", false, `verdict "$(try curl -s -m 3 http://$hostport/)"`},
		{"mail of the other's", false, `verdict "$(echo x | try curl -s -m 3 -T - --mail-from x@$theirname.$domain --mail-rcpt x@$theirname.$domain smtp://169.254.169.254 -w '%{size_upload}' | grep -v '^0$')"`},
		{"IPv6", false, `verdict "$(try ping -6 -c 1 -W 3 ff02::2%eth0 | grep 'bytes from')"`},
	}
}

// hostListener is a service on all addresses of the host, one of them on loopback, that no guest
// may reach.
func (s *suite) hostListener(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "0.0.0.0:8088")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("the host's own")) // the control below fails if this does
	})}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	addr := netip.MustParseAddr("198.51.100.9")
	if r := s.h.Run(t, nil, "ip", "address", "add", addr.String()+"/32", "dev", "lo"); r.Code != 0 {
		t.Fatal(r.Text())
	}
	url := netip.AddrPortFrom(addr, 8088).String()
	if r := s.h.Run(t, nil, "curl", "-sS", "-m", "5", "http://"+url+"/"); r.Stdout != "the host's own" {
		t.Fatalf("positive control: the host does not reach its own service: %s", r.Text())
	}
	return url
}
