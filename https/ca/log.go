package ca

import (
	"context"
	"errors"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge gives certmagic, which logs with zap, our logger. Its news are our debug lines: a certificate that comes and
// goes is no event for a person; what fails stays a warning.
func bridge(log *slog.Logger) *zap.Logger { return zap.New(&core{log: log}) }

type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func level(l zapcore.Level) slog.Level {
	if l >= zapcore.WarnLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.LevelEnabler. certmagic's own debug lines are about its cache: too many to be of use.
func (c *core) Enabled(l zapcore.Level) bool {
	return l >= zapcore.InfoLevel && c.log.Enabled(context.Background(), level(l))
}

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log, fields: append(append([]zapcore.Field{}, c.fields...), fields...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core. Of the fields, the host and the error are kept.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	attrs := []slog.Attr{slog.String("err", e.Message)}
	for _, f := range append(append([]zapcore.Field{}, c.fields...), fields...) {
		switch f.Key {
		case "server_name", "identifier", "subject":
			attrs = append(attrs, slog.String("host", f.String))
		case "error":
			if err, ok := f.Interface.(error); ok {
				attrs[0] = slog.Any("err", errors.Join(errors.New(e.Message), err))
			}
		}
	}
	c.log.LogAttrs(context.Background(), level(e.Level), "certificate upkeep", attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }
