package api

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
)

// Steps without a time continue from the last one that had its own.
func TestTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []time.Duration
		step := timed(func(p gateway.Progress) { got = append(got, p.Elapsed) })
		for _, own := range []time.Duration{0, 40 * time.Second, 0, 2 * time.Second, 0} {
			time.Sleep(time.Second) //nolint:forbidigo // in synctest's time
			step(gateway.Progress{Elapsed: own})
		}
		for i, want := range []time.Duration{time.Second, 40 * time.Second, 41 * time.Second, 2 * time.Second, 3 * time.Second} {
			if got[i] != want {
				t.Errorf("step %d has %s, want %s", i, got[i], want)
			}
		}
	})
}

func TestProgressInJSON(t *testing.T) {
	step := gateway.Progress{Phase: "disk", Text: "copying", Done: 1, Total: 2, Elapsed: 1500 * time.Millisecond}
	text, err := json.Marshal(ProgressOf(step))
	if want := `{"phase":"disk","text":"copying","done":1,"total":2,"elapsed_ms":1500}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
	var read Progress
	if err := json.Unmarshal(text, &read); err != nil || read.Step() != step {
		t.Errorf("read %+v, %v", read.Step(), err)
	}
}
