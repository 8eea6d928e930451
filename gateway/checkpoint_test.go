package gateway

import (
	"strings"
	"testing"
	"time"
)

func TestCheckCheckpointName(t *testing.T) {
	for _, name := range []string{"a", "before-upgrade", "2026-11-29T16-30-05", "v1.2_x", strings.Repeat("a", 64)} {
		if err := CheckCheckpointName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "-a", ".", "..", "a/b", "a b", "ä", "a\n", "a@b", strings.Repeat("a", 65)} {
		if err := CheckCheckpointName(name); KindOf(err) != KindInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCheckpointPlan(t *testing.T) {
	for _, p := range []CheckpointPlan{{time.Minute, 1}, {time.Hour, 24}, {MaxCheckpointEvery, MaxCheckpointKeep}} {
		if err := p.Check(); err != nil {
			t.Errorf("%v: %v", p, err)
		}
	}
	for _, p := range []CheckpointPlan{{}, {time.Hour, 0}, {time.Second, 1}, {-time.Hour, 1}, {MaxCheckpointEvery + 1, 1}, {time.Hour, MaxCheckpointKeep + 1}} {
		if err := p.Check(); KindOf(err) != KindInvalid {
			t.Errorf("%v: %v", p, err)
		}
	}
}
