package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"lodge/cmd/lodge/cli/tty"
	"lodge/gateway"
)

// print writes an answer: v as JSON, or what text writes.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.JSON {
		return a.printJSON(v)
	}
	table := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	text(table)
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// row writes one line of an answer, with its cells in columns. Print returns errors of w when it
// flushes it.
func row(w io.Writer, cells ...any) {
	line := make([]string, len(cells))
	for i, cell := range cells {
		line[i] = tty.Line(fmt.Sprint(cell))
	}
	_, _ = fmt.Fprintln(w, strings.Join(line, "\t"))
}

func (a *app) printJSON(v any) error {
	if err := writeJSON(a.out, v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// writeJSON writes v as one line. It escapes the control characters from 0x7f on: terminals obey
// them, package json does not escape them.
func writeJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var line strings.Builder
	for _, r := range text.String() {
		if r >= 0x7f && r < 0xa0 {
			fmt.Fprintf(&line, `\u%04x`, r)
		} else {
			line.WriteRune(r)
		}
	}
	_, err := io.WriteString(w, line.String())
	return err
}

// passed copies a stranger's text to stdout: unchanged to a file, to a pipe or with raw, without
// effects to a terminal.
func (a *app) passed(text io.Reader, raw bool) error {
	if _, ok := terminal(a.out); raw || !ok {
		_, err := io.Copy(a.out, text)
		return err
	}
	safe := tty.NewWriter(a.out)
	_, err := io.Copy(safe, text)
	return errors.Join(err, safe.Close())
}

// report shows err on stderr. Of several errors it shows each, but the same text once.
func report(stderr io.Writer, err error, asJSON bool) {
	several, ok := errors.AsType[failures](err)
	if !ok || errors.Is(err, context.Canceled) {
		reportOne(stderr, err, asJSON)
		return
	}
	var shown []string
	for _, err := range several {
		if !slices.Contains(shown, err.Error()) {
			shown = append(shown, err.Error())
			reportOne(stderr, err, asJSON)
		}
	}
}

// reportOne writes two lines, or one JSON object {"kind","error","hint","exit"}. A remote command
// has shown its own error.
func reportOne(stderr io.Writer, err error, asJSON bool) {
	if err == nil || errors.As(err, new(remoteExit)) {
		return
	}
	shown := &gateway.Error{Kind: gateway.KindOf(err), Msg: err.Error()}
	if e, ok := errors.AsType[*gateway.Error](err); ok {
		shown = e
	}
	if errors.Is(err, context.Canceled) {
		shown = gateway.Errorf(gateway.KindUnavailable, "interrupted")
	}
	// A write error is ignored: there is no other place to report it.
	if asJSON {
		_ = writeJSON(stderr, struct {
			*gateway.Error
			Exit int `json:"exit"`
		}{shown, ExitCode(err)})
		return
	}
	_, _ = fmt.Fprintf(stderr, "lodge: %s\n", lines(shown.Msg))
	if shown.Hint != "" {
		_, _ = fmt.Fprintf(stderr, "hint: %s\n", lines(shown.Hint))
	}
}

// lines makes text of several lines safe to show.
func lines(text string) string {
	all := strings.Split(text, "\n")
	for i, line := range all {
		all[i] = tty.Line(line)
	}
	return strings.Join(all, "\n")
}

// size writes a number of bytes for a person.
func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }
