package gateway

import (
	"strings"
	"testing"
)

func TestMailPassword(t *testing.T) {
	one, two := NewMailPassword(), NewMailPassword()
	if one == two || len(strings.ReplaceAll(one, "-", "")) != 26 || strings.Trim(one, "abcdefghijklmnopqrstuvwxyz234567-") != "" {
		t.Errorf("made %q", one)
	}
	m := VM{Mail: MailSettings{Passwords: []MailPassword{{Label: "one", Hash: HashMailPassword(one)}, {Label: "two", Hash: HashMailPassword(two)}}}}
	for password, want := range map[string]string{
		one: "one", two: "two", strings.ToUpper(one): "one", strings.ReplaceAll(two, "-", " "): "two", strings.ReplaceAll(one, "-", ""): "one",
		"": "", one + "a": "", one[1:]: "",
	} {
		found, ok := m.MailPassword(password)
		if found.Label != want || ok != (want != "") {
			t.Errorf("%q opens %q, want %q", password, found.Label, want)
		}
		if _, ok := (VM{}).MailPassword(password); ok {
			t.Errorf("%q opens no VM at all", password)
		}
	}
}
