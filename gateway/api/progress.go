package api

import (
	"sync"
	"time"

	"lodge/gateway"
)

// Progress is one step of long work in JSON.
type Progress struct {
	Phase     string `json:"phase"`           // one word, such as "disk"
	Text      string `json:"text,omitempty"`  // a line to show
	Done      int64  `json:"done,omitempty"`  // of total, in any unit
	Total     int64  `json:"total,omitempty"` // 0 when not known
	ElapsedMS int64  `json:"elapsed_ms"`      // milliseconds since the work began
}

// ProgressOf makes the JSON form of a step.
func ProgressOf(p gateway.Progress) Progress {
	return Progress{Phase: p.Phase, Text: p.Text, Done: p.Done, Total: p.Total, ElapsedMS: p.Elapsed.Milliseconds()}
}

// Step is the reverse of ProgressOf.
func (p Progress) Step() gateway.Progress {
	return gateway.Progress{
		Phase: p.Phase, Text: p.Text, Done: p.Done, Total: p.Total, Elapsed: time.Duration(p.ElapsedMS) * time.Millisecond,
	}
}

// timed passes steps on, one at a time, and gives those without a time their own: since the beginning that the last step
// with a time counted from.
func timed(progress func(gateway.Progress)) func(gateway.Progress) {
	var mu sync.Mutex
	began := time.Now()
	return func(p gateway.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Elapsed == 0 {
			p.Elapsed = time.Since(began)
		} else {
			began = time.Now().Add(-p.Elapsed)
		}
		progress(p)
	}
}
