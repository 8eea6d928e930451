package main

import (
	stdlog "log" // for what libraries write
	"log/slog"
	"strings"
)

const maxLibraryLine = 300 // bytes

// catchLibraries has what libraries write with package log in the daemon's log, as one value: net/http
// writes text of servers in guests.
func catchLibraries(logger *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(libraryLog{logger})
}

type libraryLog struct{ logger *slog.Logger }

// Write implements io.Writer.
func (l libraryLog) Write(p []byte) (int, error) {
	l.logger.Warn("library logged", "text", strings.TrimSuffix(string(p[:min(len(p), maxLibraryLine)]), "\n"))
	return len(p), nil
}
