package accel

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
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
	works, silent, reason, err := probeKVM(t.Context(), filepath.Join(t.TempDir(), "kvm"), "no-kernel", time.Minute)
	if works || silent || err != nil || !strings.Contains(reason, "no such file") {
		t.Errorf("%v %v %q %v", works, silent, reason, err)
	}
	works, silent, reason, err = probeKVM(t.Context(), os.DevNull, filepath.Join(t.TempDir(), "no-kernel"), time.Minute)
	if works || silent || err != nil || !strings.Contains(reason, "QEMU could not use it") {
		t.Errorf("%v %v %q %v", works, silent, reason, err)
	}
}

// fakeQEMU puts a qemu-system-x86_64 into the PATH that runs script.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// newProver returns one that probes a device which can be opened.
func newProver(t *testing.T, log *gatewaytest.Log, limits ...time.Duration) *Prover {
	t.Helper()
	p := New(Auto, filepath.Join(t.TempDir(), "accel.json"), log.Logger())
	p.device = os.DevNull
	copy(p.limits[:], limits)
	return p
}

func kernel() (string, error) { return "vmlinuz", nil }

// A new VM waits for the rest of the probe that began with the daemon, and no longer than the first
// of the two limits.
func TestProbeRunsInTheBackground(t *testing.T) {
	runs := filepath.Join(t.TempDir(), "runs")
	fakeQEMU(t, "echo run >> "+runs+"; exec sleep 60")
	log := new(gatewaytest.Log)
	p := newProver(t, log, 300*time.Millisecond, 700*time.Millisecond)
	ended := make(chan struct{})
	go func() { p.Run(t.Context()); close(ended) }()
	p.Offer("vmlinuz")
	gatewaytest.Eventually(t, func() error { _, err := os.Stat(runs); return err })
	begun := time.Now()
	if kvm, err := p.UseKVM(t.Context(), kernel); kvm || err != nil || time.Since(begun) > 600*time.Millisecond {
		t.Errorf("%v, %v after %s", kvm, err, time.Since(begun))
	}
	if _, err := os.Stat(p.file); err == nil {
		t.Error("TCG was cached after one probe")
	}
	<-ended
	if text, err := os.ReadFile(runs); err != nil || string(text) != "run\nrun\n" {
		t.Errorf("probes: %q, %v", text, err)
	}
	if r, err := cachedResult(p.file); err != nil || r.KVM || !strings.Contains(r.Reason, "wrote nothing under it for 700ms") {
		t.Errorf("cached %+v, %v", r, err)
	}
}

// A host that was busy for the first probe gets KVM with the second, and keeps it for this boot.
func TestSecondProbeWins(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "second")
	fakeQEMU(t, "[ -e "+flag+" ] && echo Linux version 6; touch "+flag+"; exec sleep 60")
	log := new(gatewaytest.Log)
	p := newProver(t, log, 500*time.Millisecond, 20*time.Second)
	p.Offer("vmlinuz")
	p.Run(t.Context())
	if kvm, err := p.UseKVM(t.Context(), kernel); !kvm || err != nil || log.Count("kvm=true") != 1 {
		t.Errorf("%v, %v\n%s", kvm, err, log)
	}
	again := New(Auto, p.file, log.Logger())
	again.Run(t.Context())
	kvm, err := again.UseKVM(t.Context(), func() (string, error) { return "", errors.New("asked for a kernel") })
	if !kvm || err != nil {
		t.Errorf("from the file: %v, %v", kvm, err)
	}
}

func TestUseKVMEndsWithItsCaller(t *testing.T) {
	p := newProver(t, new(gatewaytest.Log))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.UseKVM(ctx, kernel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	p.Run(ctx) // returns
}

// A guest's first bytes are untrusted. However they are split, the result is whether they contain
// the words.
func FuzzHasFirstLine(f *testing.F) {
	f.Add([]byte("[    0.000000] Linux version 6.12"))
	f.Add([]byte("SeaBIOS\r\nLinux versioX"))
	f.Fuzz(func(t *testing.T, output []byte) {
		want := bytes.Contains(output, []byte("Linux version"))
		if hasFirstLine(bytes.NewReader(output)) != want || hasFirstLine(iotest.OneByteReader(bytes.NewReader(output))) != want {
			t.Errorf("%q: want %v", output, want)
		}
	})
}
