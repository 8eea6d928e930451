package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"lodge/cmd/lodge/cli/tty"
	"lodge/gateway"
)

// progress shows long work on stderr: a line per phase, redrawn on a terminal, plain lines
// elsewhere, nothing with --json. It is safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	width int // of the terminal; 0 when there is none
	last  gateway.Progress
	drawn bool // the cursor is behind an unfinished line
}

func (a *app) progress() *progress {
	p := &progress{w: a.err}
	if a.JSON {
		p.w = io.Discard
	}
	if fd, ok := terminal(p.w); ok {
		p.width = 80
		if width, _, err := term.GetSize(fd); err == nil && width > 20 {
			p.width = width
		}
	}
	return p
}

// show shows one step.
func (p *progress) show(step gateway.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.last = step }()
	changed := step.Phase != p.last.Phase || step.Text != p.last.Text
	// Write errors are ignored: the work goes on without its display.
	if p.width == 0 {
		if changed {
			_, _ = fmt.Fprintln(p.w, line(step))
		}
		return
	}
	if p.drawn && step.Phase != p.last.Phase {
		_, _ = fmt.Fprintln(p.w)
	}
	text := []rune(line(step) + bar(step))
	_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", string(text[:min(len(text), p.width-1)]))
	p.drawn = true
}

// end ends the last line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		_, _ = fmt.Fprintln(p.w) // as above
		p.drawn = false
	}
}

func line(step gateway.Progress) string {
	text := fmt.Sprintf("%6s  %-10s", step.Elapsed.Round(100*time.Millisecond), tty.Line(step.Phase))
	return strings.TrimRight(text+" "+strings.TrimSpace(tty.Line(step.Text)), " ")
}

// bar is empty when the total is unknown.
func bar(step gateway.Progress) string {
	const cells = 24
	if step.Total <= 0 {
		return ""
	}
	part := min(max(float64(step.Done)/float64(step.Total), 0), 1)
	full := int(part * cells)
	return fmt.Sprintf("  [%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat(".", cells-full), part*100)
}
