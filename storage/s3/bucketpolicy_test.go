package s3

import (
	"strings"
	"testing"
)

func TestBucketPolicies(t *testing.T) {
	const owner = "1c9a6a4e-0000-4000-8000-000000000000"
	good := `{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}`
	with := func(old, now string) string { return strings.Replace(good, old, now, 1) }
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"one":                {`{"Statement": ` + good + `}`, true},
		"a list":             {`{"Version": "2012-10-17", "Id": "x", "Statement": [` + good + `,` + good + `]}`, true},
		"owner":              {`{"Statement": ` + with(`"*"`, `{"AWS": ["arn:aws:iam::`+owner+`:root"]}`) + `}`, true},
		"condition":          {`{"Statement": ` + with(`}`, `, "Condition": {"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "::1"]}, "Bool": {"aws:SecureTransport": true}}}`) + `}`, true},
		"not JSON":           {`{`, false},
		"more behind":        {`{"Statement": ` + good + `} {}`, false},
		"empty":              {`{"Statement": []}`, false},
		"none":               {`{}`, false},
		"version":            {`{"Version": "2026-01-01", "Statement": ` + good + `}`, false},
		"unknown element":    {`{"Statement": ` + with(`{`, `{"Extra": 1, `) + `}`, false},
		"effect":             {`{"Statement": ` + with(`Allow`, `Perhaps`) + `}`, false},
		"no principal":       {`{"Statement": ` + with(`"Principal": "*", `, ``) + `}`, false},
		"other principal":    {`{"Statement": ` + with(`"*"`, `{"AWS": "123456789012"}`) + `}`, false},
		"service":            {`{"Statement": ` + with(`"*"`, `{"Service": "x"}`) + `}`, false},
		"not principal":      {`{"Statement": ` + with(`"Principal"`, `"NotPrincipal"`) + `}`, false},
		"no action":          {`{"Statement": ` + with(`"Action": "s3:GetObject", `, ``) + `}`, false},
		"unknown action":     {`{"Statement": ` + with(`s3:GetObject`, `s3:Fly`) + `}`, false},
		"other service":      {`{"Statement": ` + with(`s3:GetObject`, `ec2:*`) + `}`, false},
		"no resource":        {`{"Statement": ` + with(`, "Resource": "arn:aws:s3:::box/*"`, ``) + `}`, false},
		"other bucket":       {`{"Statement": ` + with(`box/*`, `shop/*`) + `}`, false},
		"any bucket":         {`{"Statement": ` + with(`box/*`, `*`) + `}`, false},
		"longer bucket":      {`{"Statement": ` + with(`box/*`, `box*`) + `}`, false},
		"unknown operator":   {`{"Statement": ` + with(`}`, `, "Condition": {"StringSimilar": {"s3:prefix": "a"}}}`) + `}`, false},
		"unknown key":        {`{"Statement": ` + with(`}`, `, "Condition": {"StringEquals": {"aws:userid": "a"}}}`) + `}`, false},
		"bad address":        {`{"Statement": ` + with(`}`, `, "Condition": {"IpAddress": {"aws:SourceIp": "home"}}}`) + `}`, false},
		"value is an object": {`{"Statement": ` + with(`}`, `, "Condition": {"StringEquals": {"s3:prefix": {}}}}`) + `}`, false},
		"unclear pattern":    {`{"Statement": ` + with(`box/*`, `box/*a?b*`) + `}`, true},
		"unclear and long":   {`{"Statement": ` + with(`box/*`, `box/*?`+strings.Repeat("a", 64)+`*`) + `}`, false},
		"many unclear":       {`{"Statement": ` + with(`box/*`, `box/*`+strings.Repeat("a?*", 9)) + `}`, false},
		"long":               {`{"Id": "` + strings.Repeat("x", 21<<10) + `", "Statement": ` + good + `}`, false},
	} {
		if _, err := parseBucketPolicy([]byte(c.text), "box", owner); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWild(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true},
		{"*", "a/b", true},
		{"a*c", "abbc", true},
		{"a*c", "abb", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"", "", true},
		{"", "a", false},
		{"a**", "a", true},
		{"*a*b", "xaxb", true},
		{"*a*b", "xbxa", false},
		{"a", "ab", false},
		{"ab*bc", "abc", false},
		{"*a?c*", "xxabcx", true},
		{"*a?c*", "xxabx", false},
		{"a*?", "a", false},
		{"a*?", "ab", true},
		{"*b*a*", "aba", true},
	} {
		if got := wild(c.pattern, c.text); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.text, got)
		}
	}
}

// A policy is public unless it lets only few addresses pass.
func TestPublicPolicies(t *testing.T) {
	for condition, want := range map[string]bool{
		`{}`: true,
		`{"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}`:                  false,
		`{"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}`: false,
		`{"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}`:                     true,
		`{"IpAddress": {"aws:SourceIp": ["192.0.2.1", "128.0.0.0/7"]}}`:    true,
		`{"IpAddress": {"aws:SourceIp": "2000::/3"}}`:                      true,
		`{"IpAddress": {"aws:SourceIp": "2001::/31"}}`:                     true,
		`{"IpAddressIfExists": {"aws:SourceIp": "192.0.2.0/24"}}`:          true,
		`{"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}`:               true,
		`{"Bool": {"aws:SecureTransport": "true"}}`:                        true,
	} {
		text := `{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::box/*", "Condition": ` + condition + `}}`
		policy, err := parseBucketPolicy([]byte(text), "box", "me")
		if err != nil || public(policy) != want {
			t.Errorf("%s: %v, %v", condition, public(policy), err)
		}
	}
}

// A truth in a condition is compared as one, however it is written.
func TestTruths(t *testing.T) {
	truth := conditionOperators()["Bool"]
	for _, want := range []string{"false", "False", "0", "f"} {
		if same, ok := truth(want, "false"); !same || !ok {
			t.Errorf("%s is not false", want)
		}
		if same, _ := truth(want, "true"); same {
			t.Errorf("%s is true", want)
		}
	}
	if _, ok := truth("perhaps", ""); ok {
		t.Error("perhaps was accepted")
	}
}

// FuzzBucketPolicy: a policy of any bytes is refused, or is about this bucket alone.
func FuzzBucketPolicy(f *testing.F) {
	f.Add(`{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "arn:aws:s3:::box/*", "Condition": {"NumericLessThan": {"s3:max-keys": 3}}}}`)
	f.Add(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ["*"]}, "NotAction": ["s3:Put*"], "NotResource": "arn:aws:s3:::box"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		policy, err := parseBucketPolicy([]byte(text), "box", "me")
		if err != nil {
			return
		}
		if len(policy) == 0 {
			t.Error("an empty policy")
		}
		for _, s := range policy {
			if !s.resources.not && (s.resources.match("boxes/k") || s.resources.match("shop/k")) {
				t.Errorf("another bucket: %v", s.resources)
			}
		}
	})
}
