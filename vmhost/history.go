package vmhost

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// maxKept is how many checkpoints' lists of files are kept on disk.
const maxKept = 200

// History returns what was changed from each of a VM's newest checkpoints to the next, and from the last
// to now; at most last of these steps (1 to gateway.MaxHistory). What was found at a checkpoint is kept,
// so only the first call is slow. Errors are those of Changes.
func (h *Host) History(ctx context.Context, id gateway.ID, last int) ([]gateway.HistoryStep, error) {
	if last < 1 || last > gateway.MaxHistory {
		return nil, gateway.Invalid("not a number of steps: %d", last).WithHint("Choose 1 to %d.", gateway.MaxHistory)
	}
	m, ok := h.dir.ByID(id)
	if !ok {
		return nil, errGone()
	}
	moments := []*gateway.Checkpoint{nil} // the image
	for _, c := range h.checkpoints.Of(id) {
		if c.Kind != gateway.CheckpointFork {
			moments = append(moments, &c)
		}
	}
	moments = append(moments, nil) // now
	moments = moments[max(0, len(moments)-1-last):]
	var was examined
	steps := []gateway.HistoryStep{}
	for i, at := range moments {
		if at == nil && i == 0 {
			continue
		}
		now, err := h.inspect(ctx, id, at)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			c, err := between(m, moments[i-1], was, now)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step(moments[i-1], at, c))
		}
		was = now
	}
	return steps, nil
}

// step is what was changed between two moments, where nil is the image or now.
func step(from, to *gateway.Checkpoint, c gateway.Changes) gateway.HistoryStep {
	s := gateway.HistoryStep{Changes: c}
	if from != nil {
		s.From, s.FromTime = from.Name, from.Created
	}
	if to != nil {
		s.To, s.ToTime, s.Kind = to.Name, to.Created, to.Kind
	}
	return s
}

// inspect lists what a VM has now, or had at a checkpoint: as that never changes, it is kept.
func (h *Host) inspect(ctx context.Context, id gateway.ID, at *gateway.Checkpoint) (found examined, err error) {
	if at != nil {
		if found, err = readExamined(h.cfg.examinedFile(at.ID)); err == nil {
			return found, nil
		}
	}
	err = h.examine(ctx, id, at, func(_ gateway.VM, g shell) (err error) {
		found, err = inspect(g)
		return err
	})
	if err == nil && at != nil {
		if failed := h.keep(at.ID, found); failed != nil {
			h.log.WarnContext(ctx, "what a checkpoint contains was not kept", "err", failed) // the next call looks again
		}
	}
	return found, err
}

func (c Config) examinedFile(id gateway.CheckpointID) string {
	return filepath.Join(c.examinedDir(), string(id)+".gob.gz")
}

// keep writes what was found at a checkpoint, and removes what is kept past maxKept.
func (h *Host) keep(id gateway.CheckpointID, found examined) error {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	err := errors.Join(gob.NewEncoder(z).Encode(found), z.Close())
	if err == nil {
		err = durable.WriteFile(h.cfg.examinedFile(id), packed.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	entries, err := os.ReadDir(h.cfg.examinedDir())
	if err != nil || len(entries) <= maxKept {
		return err
	}
	written := func(e fs.DirEntry) int64 {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(written(a), written(b)) })
	for _, e := range entries[:len(entries)-maxKept] {
		err = errors.Join(err, os.Remove(filepath.Join(h.cfg.examinedDir(), e.Name())))
	}
	return err
}

func readExamined(path string) (found examined, err error) {
	f, err := os.Open(path)
	if err != nil {
		return found, err
	}
	defer f.Close() //nolint:errcheck // only read
	z, err := gzip.NewReader(f)
	if err != nil {
		return found, fmt.Errorf("read %s: %w", path, err)
	}
	err = gob.NewDecoder(z).Decode(&found)
	return found, err
}

// dropExamined removes what is kept of a checkpoint.
func (h *Host) dropExamined(id gateway.CheckpointID) error {
	if err := os.Remove(h.cfg.examinedFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
