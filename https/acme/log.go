package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge returns a zap logger for certmagic that writes to log. Routine messages become debug
// lines; warnings and errors become warnings.
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

// Enabled implements zapcore.LevelEnabler. certmagic's debug lines, which trace its cache, are
// dropped.
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

// Write implements zapcore.Core. It keeps the message, as op, the host and the error.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	attrs := []slog.Attr{slog.String("op", e.Message)}
	for _, f := range append(append([]zapcore.Field{}, c.fields...), fields...) {
		switch f.Key {
		case "server_name", "identifier", "subject":
			attrs = append(attrs, slog.String("host", f.String))
		case "error":
			if err, ok := f.Interface.(error); ok {
				attrs = append(attrs, slog.Any("err", err))
			}
		}
	}
	c.log.LogAttrs(context.Background(), level(e.Level), "certmagic reported", attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }
