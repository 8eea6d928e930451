package control

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"lodge/gateway"
)

// consoleProtocol is what the console verb upgrades to (RFC 9110 §7.8): raw bytes, both ways.
const consoleProtocol = "lodge-console"

func (s *Server) console(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != consoleProtocol {
		return gateway.Invalid("the console needs an upgrade to %s", consoleProtocol)
	}
	serial, err := s.as(r).Console(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	defer serial.Close() //nolint:errcheck // nothing was buffered that could be lost
	rec := w.(*recorder) //nolint:forcetypeassert // logged makes every ResponseWriter
	caller, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer caller.Close() //nolint:errcheck // as above
	rec.status = http.StatusSwitchingProtocols
	rec.sentError = true
	_, err = io.WriteString(caller, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+consoleProtocol+"\r\n\r\n")
	if err != nil {
		return err
	}
	rec.bytes = join(r.Context(), caller, buffered, serial)
	return nil
}

// join copies between the caller (who may have sent something already) and the console until either ends or ctx does. It
// returns the number of bytes from the console.
func join(ctx context.Context, caller net.Conn, buffered io.Reader, serial io.ReadWriteCloser) (fromConsole int64) {
	end := sync.OnceFunc(func() {
		_, _ = caller.Close(), serial.Close() // closing is only to end the other copy
	})
	defer context.AfterFunc(ctx, end)()
	var typing sync.WaitGroup
	typing.Go(func() {
		_, _ = io.Copy(serial, buffered) // an error is the end of the console or of the caller, both normal
		end()
	})
	fromConsole, _ = io.Copy(caller, serial) // likewise
	end()
	typing.Wait()
	return fromConsole
}

func (s *Server) log(w http.ResponseWriter, r *http.Request) error {
	follow := r.URL.Query().Get("follow") == "true"
	text, err := s.as(r).Log(r.Context(), r.PathValue("name"), follow)
	if err != nil {
		return err
	}
	defer text.Close() //nolint:errcheck // it was only read
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = io.Copy(&flusher{w}, text)
	if r.Context().Err() != nil {
		return nil //nolint:nilerr // a followed log ends when its reader goes
	}
	return err
}

// changes answers with what was changed in a VM.
func (s *Server) changes(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	changes, err := s.as(r).Changes(r.Context(), r.PathValue("name"), gateway.ChangesQuery{From: q.Get("from"), To: q.Get("to"), Text: q.Get("text") == "true"})
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, changes)
	return nil
}

// history answers with what was changed from checkpoint to checkpoint.
func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	last, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("last"), "10"))
	if err != nil {
		return gateway.Invalid("last is not a number: %.40q", r.URL.Query().Get("last"))
	}
	steps, err := s.as(r).History(r.Context(), r.PathValue("name"), last)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, steps)
	return nil
}

// flusher sends every piece on at once.
type flusher struct{ http.ResponseWriter }

// Write implements io.Writer.
func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(f.ResponseWriter).Flush()
}

func (s *Server) message(w http.ResponseWriter, r *http.Request) error {
	message, err := s.as(r).Message(r.Context(), r.PathValue("name"), r.PathValue("queue_id"))
	if err != nil {
		return err
	}
	defer message.Close() //nolint:errcheck // it was only read
	w.Header().Set("Content-Type", "message/rfc822")
	_, err = io.Copy(w, message)
	return err
}

// recipe answers with a recipe.
func (s *Server) recipe(w http.ResponseWriter, r *http.Request) error {
	recipe, err := s.as(r).Recipe(r.Context(), r.PathValue("name"), r.URL.Query().Get("objects") == "true")
	return answerOr(w, recipe, err)
}

// recipeFile answers with a large file of a recipe.
func (s *Server) recipeFile(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	bytes, err := strconv.ParseInt(q.Get("bytes"), 10, 64)
	if err != nil {
		return gateway.Invalid("bytes is not a number: %.40q", q.Get("bytes"))
	}
	o := gateway.RecipeObject{Path: q.Get("path"), Bytes: bytes, SHA256: q.Get("sha256")}
	return s.as(r).RecipeFile(r.Context(), r.PathValue("name"), o, &sized{ResponseWriter: w, bytes: bytes})
}

// sized is an answer of so many bytes, whose headers are set at the first of them: until then there may be
// an error.
type sized struct {
	http.ResponseWriter

	bytes int64
	begun bool
}

// Write implements io.Writer.
func (s *sized) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.Header().Set("Content-Type", "application/octet-stream")
		s.Header().Set("Content-Length", strconv.FormatInt(s.bytes, 10))
	}
	c := http.NewResponseController(s.ResponseWriter) // a client stopped by ^Z must not hold up the VM
	_ = c.SetWriteDeadline(time.Now().Add(stalled))   // without one, a slow reader is waited for
	n, err := s.ResponseWriter.Write(p)
	_ = c.SetWriteDeadline(time.Time{}) // as above
	return n, err
}
