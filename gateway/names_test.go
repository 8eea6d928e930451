package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"lodge/gateway"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "blog", "my-blog-2", "lodge2", "s3x", "www2", strings.Repeat("a", gateway.MaxNameBytes)} {
		if err := gateway.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", strings.Repeat("a", gateway.MaxNameBytes+1), strings.Repeat("a", 64), "Blog", "bLog", "8080", "1blog", "-blog", "blog-", "my--blog",
		"..", ".", "a.b", "../a", "a/b", "a b", " a", "a\x00", "a\n", "ä", "xn--a", "_a", "a_b", "*",
		"s3", "www", "mail", "smtp", "imap", "metadata", "gateway", "ntp", "dns", "lodge", "localhost", "internal", "s3 www",
	} {
		e, ok := errors.AsType[*gateway.Error](gateway.CheckName(name))
		if !ok || e.Kind != gateway.KindInvalid || e.Hint == "" {
			t.Errorf("%q: %v; want an invalid-name error with a hint", name, e)
		}
	}
}

func TestParsePort(t *testing.T) {
	for s, want := range map[string]uint16{"1": 1, "80": 80, "65535": 65535} {
		if got, err := gateway.ParsePort(s); got != want || err != nil {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "00", "080", "+80", "-1", " 80", "80 ", "65536", "99999999999999999999", "http", "8_0", "0x50", "٨٠"} {
		if got, err := gateway.ParsePort(s); gateway.KindOf(err) != gateway.KindInvalid || got != 0 {
			t.Errorf("%q: %d, %v; want an error", s, got, err)
		}
	}
}

func TestSplitHost(t *testing.T) {
	for label, want := range map[string]string{
		"blog": "blog 0", "8080-blog": "blog 8080", "1-a": "a 1", "65535-my-blog-2": "my-blog-2 65535", "a8080-b": "a8080-b 0",
	} {
		if name, port, err := gateway.SplitHost(label); fmt.Sprint(name, " ", port) != want || err != nil {
			t.Errorf("%q: %s %d, %v; want %s", label, name, port, err, want)
		}
	}
	for _, label := range []string{"", "-", "8080-", "8080", "0-blog", "080-blog", "65536-blog", "80-90-blog", "-blog", "8080-Blog", "8080-s3", "80--blog"} {
		if name, port, err := gateway.SplitHost(label); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%q: %s %d, %v; want an error", label, name, port, err)
		}
	}
}

// A name that passes is one DNS label with room for a port in front. It is no number and no
// reserved name, and SplitHost returns it from every host label that contains it.
func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"blog", "", "a-b", "s3", "8080-blog", "..", "A", "a--b", "xn--a"} {
		f.Add(s, uint16(8080))
	}
	f.Fuzz(func(t *testing.T, name string, port uint16) {
		if gateway.CheckName(name) != nil {
			return
		}
		if len(name) == 0 || len(name) > gateway.MaxNameBytes || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Fatalf("%q is no DNS label", name)
		}
		if got, p, err := gateway.SplitHost(name); got != name || p != gateway.DefaultPort || err != nil {
			t.Fatalf("%q reads back as %q, %d, %v", name, got, p, err)
		}
		if port == 0 {
			return
		}
		if got, p, err := gateway.SplitHost(fmt.Sprintf("%d-%s", port, name)); got != name || p != port || err != nil {
			t.Fatalf("%d-%q reads back as %q, %d, %v", port, name, got, p, err)
		}
	})
}

// The parts that SplitHost returns make up its argument again: no two labels lead to the same page.
func FuzzSplitHost(f *testing.F) {
	for _, s := range []string{"blog", "8080-blog", "0-a", "080-a", "80-90-a", "-a", "65536-a", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		name, port, err := gateway.SplitHost(label)
		if err != nil {
			return
		}
		if port != gateway.DefaultPort {
			name = fmt.Sprintf("%d-%s", port, name)
		}
		if name != label {
			t.Fatalf("%q reads as %q", label, name)
		}
	})
}

// A port that passes is from 1 to 65535 and has one spelling.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "", "0", "65536", "+1", "01", "http"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		port, err := gateway.ParsePort(s)
		if err == nil && (port == 0 || strconv.Itoa(int(port)) != s) {
			t.Fatalf("%q reads as %d", s, port)
		}
	})
}

// An ID that passes has one meaning: String returns the text that was parsed, in lower case.
func FuzzParseID(f *testing.F) {
	f.Add(gateway.NewID().String())
	f.Add("00000000-0000-0000-0000-000000000000")
	f.Add("0123456789ABCDEF-0123-0123-012345678")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := gateway.ParseID(s)
		if err != nil {
			if id != (gateway.ID{}) {
				t.Fatalf("%q gives %s and an error", s, id)
			}
			return
		}
		if again, err := gateway.ParseID(id.String()); again != id || err != nil || id.String() != strings.ToLower(s) {
			t.Fatalf("%q reads as %s, and that as %s, %v", s, id, again, err)
		}
	})
}

func TestIDs(t *testing.T) {
	id := gateway.NewID()
	if s := id.String(); s[14] != '4' || !strings.ContainsRune("89ab", rune(s[19])) || id == gateway.NewID() {
		t.Errorf("%s is not a random UUID of version 4", s)
	}
	text, err := json.Marshal(id)
	fatal(t, err)
	var back gateway.ID
	if err := json.Unmarshal(text, &back); err != nil || back != id {
		t.Errorf("%s reads back as %s, %v", text, back, err)
	}
	if json.Unmarshal([]byte(`"blog"`), &back) == nil || back != (gateway.ID{}) {
		t.Errorf("a name parsed as an ID: %s", back)
	}
}

func TestTapAndMACFollowFromTheNumber(t *testing.T) {
	for number, want := range map[uint32]string{
		1: "lg00000001 52:54:00:00:00:01", 0xdeadbeef: "lgdeadbeef 52:54:de:ad:be:ef", 1<<32 - 1: "lgffffffff 52:54:ff:ff:ff:ff",
	} {
		vm := gateway.Identity{Number: number}
		if got := vm.Tap() + " " + vm.MAC().String(); got != want || len(vm.Tap()) > 15 {
			t.Errorf("number %d has %s, want %s", number, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("disk on fire")
	base := gateway.Errorf(gateway.KindNoSpace, "no room for %s", "blog")
	full := base.WithHint("Remove %d VMs.", 3).Because(cause)
	if base.Hint != "" || base.Err != nil {
		t.Error("WithHint or Because has changed the original")
	}
	wrapped := fmt.Errorf("make VM: %w", full)
	if gateway.KindOf(wrapped) != gateway.KindNoSpace || !errors.Is(wrapped, cause) || wrapped.Error() != "make VM: no room for blog" {
		t.Errorf("wrapped: %v of kind %s", wrapped, gateway.KindOf(wrapped))
	}
	text, err := json.Marshal(full)
	fatal(t, err)
	if got, want := string(text), `{"kind":"no-space","error":"no room for blog","hint":"Remove 3 VMs."}`; got != want {
		t.Errorf("JSON %s, want %s: the cause is for the log", got, want)
	}
	if gateway.KindOf(cause) != gateway.KindInternal {
		t.Error("an error without a kind is not internal")
	}
}
