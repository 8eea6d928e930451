package e2e

import (
	"fmt"
	"strings"
	"testing"

	"lodge/e2e/harness"
)

// s3Script has the functions of the scripts below: S3 by curl, which starts at once, where aws
// takes seconds under TCG.
const s3Script = `
	base=http://s3.lodge.internal
	signed() { curl -sS -m 20 --aws-sigv4 aws:amz:us-east-1:s3 --user "${keys:-any:key}" "$@"; }
	raw() { # curl cannot sign a path that it leaves as it is; for a made-up key the form is enough
		now=$(date -u +%Y%m%dT%H%M%SZ)
		curl -sS -m 20 --path-as-is -H "x-amz-date: $now" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
			-H "Authorization: AWS4-HMAC-SHA256 Credential=any/${now%T*}/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=$(printf '%064d' 0)" "$@"
	}
`

// neighboursThings has each VM try to read the other's bucket, credentials, mailbox, metadata token
// and page.
func (s *suite) neighboursThings(t *testing.T) {
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		vm.Run(t, s3Script+fmt.Sprintf(`printf 'secret of %[1]s' >/tmp/secret; signed -f -T /tmp/secret $base/private-%[1]s/secret`, vm.Name))
		s.send(t, "person@example.org", "secret@"+vm.Name+"."+s.h.Domain, "secret of "+vm.Name)
	}
	s.both(t, func(t *testing.T, me, other *harness.VM) {
		t.Run("bucket", func(t *testing.T) { stranger(t, me, other) })
		t.Run("credentials", func(t *testing.T) { stolenKeys(t, me, other) })
		t.Run("mailbox", func(t *testing.T) { otherMailbox(t, me, other) })
		t.Run("token", func(t *testing.T) { stolenToken(t, me, other) })
		t.Run("page", func(t *testing.T) { s.otherPage(t, me, other) })
	})
}

func stranger(t *testing.T, me, other *harness.VM) {
	got := me.Run(t, s3Script+fmt.Sprintf(`signed $base/private-%[1]s/secret; printf '|'; raw $base/`, me.Name))
	contains(t, "positive control", got, "secret of "+me.Name+"|", "private-"+me.Name)
	lacks(t, "the list of buckets", got, "private-"+other.Name)
	r := me.Try(t, s3Script+fmt.Sprintf(`
		signed $base/private-%[1]s/secret || true
		signed $base/private-%[1]s/ || true
		raw $base/private-%[2]s/../private-%[1]s/secret || true
		raw $base/private-%[2]s/%%2e%%2e/private-%[1]s/secret || true
		raw $base/private-%[2]s%%2f..%%2fprivate-%[1]s/secret || true
		signed http://private-%[1]s.s3.lodge.internal/secret || true
		signed -X PUT -H 'x-amz-copy-source: /private-%[1]s/secret' $base/private-%[2]s/copy || true
		signed $base/private-%[2]s/copy || true
		curl -sS -m 20 $base/private-%[1]s/secret || true`, other.Name, me.Name))
	lacks(t, "asked for the other's bucket", r.Text(), "secret of "+other.Name)
	if answers := strings.Count(r.Stdout, "<Error>"); answers < 7 {
		t.Errorf("of nine questions %d were refused:\n%s", answers, r.Text())
	}
}

// credentialsScript prints an access key and its secret.
const credentialsScript = `
	token=$(curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 600' http://169.254.169.254/latest/api/token)
	curl -sSf -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/iam/security-credentials/lodge |
		sed -n 's/.*"\(AccessKeyId\|SecretAccessKey\)": *"\([^"]*\)".*/\2/p' | paste -sd:`

// useKeys lists a VM's buckets with an access key and its secret.
func useKeys(t *testing.T, vm *harness.VM, keys string) string {
	t.Helper()
	return vm.Run(t, s3Script+"keys='"+strings.TrimSpace(keys)+"' signed -w ' %{http_code}' $base/")
}

func stolenKeys(t *testing.T, me, other *harness.VM) {
	contains(t, "positive control", useKeys(t, me, me.Run(t, credentialsScript)), "private-"+me.Name, " 200")
	got := useKeys(t, me, other.Run(t, credentialsScript))
	contains(t, "with the other's keys", got, " 403")
	lacks(t, "with the other's keys", got, "private-")
}

func otherMailbox(t *testing.T, me, other *harness.VM) {
	got := me.Run(t, fmt.Sprintf(`python3 - <<'END'
import imaplib
m = imaplib.IMAP4("169.254.169.254", timeout=20)
print(m.state, [line.decode() for line in m.list()[1] if line])
for attempt in (lambda: m.login("lodge", "lodge"), lambda: m.login("%[1]s", ""), lambda: m.select('"%[1]s/INBOX"'),
                lambda: m.select('"../%[1]s/INBOX"'), lambda: m.select('"user.%[1]s"')):
    try:
        print(attempt()[0])
    except imaplib.IMAP4.error as e:
        print("NO")
m.select("INBOX")
for number in m.search(None, "ALL")[1][0].split():
    print(m.fetch(number, "(BODY[TEXT])")[1][0][1].decode(errors="replace"))
END`, other.Name))
	contains(t, "positive control", got, "AUTH", "INBOX", "secret of "+me.Name)
	lacks(t, "over IMAP", got, "secret of "+other.Name, other.Name+"/", "OK")
}

func stolenToken(t *testing.T, me, other *harness.VM) {
	const take = `curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 600' http://169.254.169.254/latest/api/token`
	use := func(token string) string {
		return me.Run(t, `curl -sS -m 10 -w ' %{http_code}' -H "X-aws-ec2-metadata-token: `+token+`" http://169.254.169.254/latest/meta-data/hostname`)
	}
	contains(t, "positive control", use(me.Run(t, take)), me.Name+".", " 200")
	got := use(other.Run(t, take))
	contains(t, "with the other's token", got, " 401")
	lacks(t, "with the other's token", got, me.Name+".", other.Name+".")
}

// otherPage requests pages from inside by their plain names: a VM may open its own, and not the
// other's private one.
func (s *suite) otherPage(t *testing.T, me, other *harness.VM) {
	const status = `curl -sS -m 20 -o /dev/null -w '%{http_code}' `
	for _, name := range []string{"%s", "8000-%s", "any.%s"} {
		own := "https://" + fmt.Sprintf(name, me.Name) + ".lodge.internal/"
		if got := me.Run(t, status+own); got == "401" || got == "403" || got == "421" {
			t.Errorf("positive control: %s gets %s for its own page %s", me.Name, got, own)
		}
		page := "https://" + fmt.Sprintf(name, other.Name) + ".lodge.internal/"
		for _, headers := range []string{"", fmt.Sprintf("-H 'X-Lodge-User: owner@%[2]s' -H 'X-Lodge-Vm: %[1]s' -H 'X_Lodge_Vm: %[1]s' ", other.Name, s.h.Domain)} {
			if got := me.Run(t, status+headers+page); got != "403" {
				t.Errorf("%s gets %s for %s with headers %q", me.Name, got, page, headers)
			}
		}
	}
}

// pagesInside: plain curl in a VM opens the VM's own private pages, and public ones of the other.
func (s *suite) pagesInside(t *testing.T) {
	s.both(t, func(t *testing.T, me, _ *harness.VM) {
		me.Run(t, `mkdir -p ~/inside && echo "page of $(hostname)" >~/inside/index.html
			sudo systemd-run --quiet --unit=inside python3 -m http.server --directory /home/lodge/inside 9200
			until curl -s -o /dev/null http://127.0.0.1:9200/; do sleep 0.2; done`)
	})
	s.both(t, func(t *testing.T, me, other *harness.VM) {
		page := func(vm *harness.VM, domain string) string { return "https://9200-" + vm.Name + "." + domain + "/" }
		own := me.Run(t, `curl -fsS -m 20 `+page(me, "lodge.internal")+`
			curl -fsSL -m 20 http`+strings.TrimPrefix(page(me, "lodge.internal"), "https")+`
			python3 -c 'import urllib.request; print(urllib.request.urlopen("`+page(me, "lodge.internal")+`", timeout=20).read().decode(), end="")'`)
		if want := strings.TrimSuffix(strings.Repeat("page of "+me.Name+"\n", 3), "\n"); own != want {
			t.Errorf("%s gets its own page as %q, want %q", me.Name, own, want)
		}
		if r := me.Try(t, `curl -fsS -m 20 `+page(other, "lodge.internal")); r.Code != 22 || !strings.Contains(r.Stderr, "403") {
			t.Errorf("the private page of %s: %s", other.Name, r.Text())
		}
		// curl takes *.localhost for this machine: the public name needs --resolve there
		public := "9200-" + me.Name + "." + s.h.Domain
		if got := me.Run(t, `getent ahostsv4 `+public+` | awk 'NR == 1 {print $1}'
			curl -fsS -m 20 --resolve `+public+`:443:169.254.169.254 https://`+public+`/`); got != "169.254.169.254\npage of "+me.Name {
			t.Errorf("the public name in %s: %q", me.Name, got)
		}
	})
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		s.h.Lodge(t, "share", vm.Name, "9200", "public")
	}
	s.both(t, func(t *testing.T, me, other *harness.VM) {
		if got, want := me.Run(t, `curl -fsS -m 20 https://9200-`+other.Name+`.lodge.internal/`), "page of "+other.Name; got != want {
			t.Errorf("%s gets the public page of %s as %q", me.Name, other.Name, got)
		}
	})
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		s.h.Lodge(t, "share", vm.Name, "9200", "private")
	}
}
