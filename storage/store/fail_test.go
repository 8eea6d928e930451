package store

import (
	"log/slog"
	"testing"
	"time"

	"lodge/gateway/sandboxtest"
)

// TestRunEndsWhenTheIndexFails breaks the log under an abort that Run itself makes, which never ends: Run returns,
// and so does Close.
func TestRunEndsWhenTheIndexFails(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	s := open(t, dir, func(c *Config) {
		c.Now, c.Log = func() time.Time { return now }, slog.New(slog.DiscardHandler) // what is blocked outlives the test
	})
	_, err := s.NewUpload(Key{blog, "box", "x"}, UploadOptions{})
	must(t, err)
	now = now.Add(2 * uploadsLast)
	sandboxtest.BreakWrites(t, s.path("index"), ".log")
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Run returned no error")
		}
		wantErr(t, s.Close(), err)
	case <-time.After(time.Minute):
		t.Fatal("Run did not end")
	}
}
