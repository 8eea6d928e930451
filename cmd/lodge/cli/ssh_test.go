package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

func TestParseSSH(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want sshLine
		bad  bool
	}{
		"a session":              {in: "blog", want: sshLine{vm: "blog"}},
		"a command":              {in: "blog ls -l --json", want: sshLine{vm: "blog", command: []string{"ls", "-l", "--json"}}},
		"our flag":               {in: "blog --json", want: sshLine{vm: "blog", json: true}},
		"help":                   {in: "--help", want: sshLine{help: true}},
		"forwarding":             {in: "-NL 1:a:2 blog", want: sshLine{options: []string{"-NL", "1:a:2"}, vm: "blog"}},
		"a value within":         {in: "-oBatchMode=yes blog", want: sshLine{options: []string{"-oBatchMode=yes"}, vm: "blog"}},
		"a value like an option": {in: "-o -x blog", want: sshLine{options: []string{"-o", "-x"}, vm: "blog"}},
		"options behind the VM":  {in: "blog -t -p 22 top -b", want: sshLine{options: []string{"-t", "-p", "22"}, vm: "blog", command: []string{"top", "-b"}}},
		"two dashes":             {in: "-v -- blog -- -x", want: sshLine{options: []string{"-v"}, vm: "blog", command: []string{"-x"}}},
		"nothing":                {bad: true},
		"no VM":                  {in: "-v", bad: true},
		"no value":               {in: "blog -L", bad: true},
		"an unknown flag":        {in: "--jsn blog", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSSH(strings.Fields(test.in))
			if bad := gateway.KindOf(err) == gateway.KindInvalid; test.bad != bad {
				t.Fatalf("%+v, %v", got, err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(sshLine{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
