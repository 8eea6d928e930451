package accel

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"lodge/gateway"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Mode{"": Auto, "auto": Auto, "kvm": KVM, "tcg": TCG} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := Parse("xen"); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("xen: %v", err)
	}
}

func TestResultHoldsForOneBoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "accel.json")
	v, err := cachedResult(file)
	if err != nil || v.Reason != "" {
		t.Fatalf("without a file: %+v, %v", v, err)
	}
	v.KVM, v.Reason = true, "it was proven"
	if err := v.save(file); err != nil {
		t.Fatal(err)
	}
	if again, err := cachedResult(file); err != nil || again != v {
		t.Errorf("saved %+v, read %+v, %v", v, again, err)
	}
	for name, text := range map[string]string{
		"other boot": `{"boot":"another","kvm":true,"reason":"it was proven"}`, "cut off": `{"boot":`, "empty": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := cachedResult(file); err != nil || v.Reason != "" {
			t.Errorf("%s: %+v, %v; want it proven anew", name, v, err)
		}
	}
}

func TestProbeNeedsTheDevice(t *testing.T) {
	works, reason, err := probeKVM(t.Context(), filepath.Join(t.TempDir(), "kvm"), "no-kernel")
	if works || err != nil || !strings.Contains(reason, "no such file") {
		t.Errorf("%v %q %v", works, reason, err)
	}
	works, reason, err = probeKVM(t.Context(), os.DevNull, filepath.Join(t.TempDir(), "no-kernel"))
	if works || err != nil || !strings.Contains(reason, "QEMU could not use it") {
		t.Errorf("%v %q %v", works, reason, err)
	}
}

// A guest's first bytes are a stranger's: however they are cut, the answer is whether the words are there.
func FuzzHasFirstLine(f *testing.F) {
	f.Add([]byte("[    0.000000] Linux version 6.12"))
	f.Add([]byte("SeaBIOS\r\nLinux versioX"))
	f.Fuzz(func(t *testing.T, said []byte) {
		want := bytes.Contains(said, []byte("Linux version"))
		if hasFirstLine(bytes.NewReader(said)) != want || hasFirstLine(iotest.OneByteReader(bytes.NewReader(said))) != want {
			t.Errorf("%q: want %v", said, want)
		}
	})
}
