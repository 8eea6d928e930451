package apex

import (
	"testing"

	"lodge/https/login/browser"
)

// FuzzCookie: what a browser sends is a session's cookie in one spelling, or none.
func FuzzCookie(f *testing.F) {
	secret := browser.NewSecret()
	for _, value := range []string{"", ".", "1." + secret, "01." + secret, "+1." + secret, "-1." + secret, "1.." + secret, "9223372036854775808." + secret} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		person, id, ok := readCookie(value)
		if ok && (person <= 0 || id == [32]byte{} || len(value) > 64) {
			t.Errorf("%q is of person %d", value, person)
		}
	})
	if person, _, ok := readCookie(cookieValue(7, secret)); !ok || person != 7 {
		f.Errorf("of person %d, %t", person, ok)
	}
}
