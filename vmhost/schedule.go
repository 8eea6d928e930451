package vmhost

import (
	"context"
	"errors"
	"time"

	"lodge/gateway"
	"lodge/vmhost/checkpoint"
)

// Scheduled checkpoints are looked for every scheduleEvery, and one may take scheduleLimit.
const (
	scheduleEvery = 20 * time.Second
	scheduleLimit = time.Minute
)

// runSchedules makes the checkpoints that are due, and removes those that have expired, until ctx ends.
func (h *Host) runSchedules(ctx context.Context) {
	due := time.NewTicker(scheduleEvery)
	defer due.Stop()
	failed := map[gateway.ID]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		for _, m := range h.dir.All() {
			err := h.keepSchedule(ctx, m, time.Now())
			if text(err) != failed[m.ID] && ctx.Err() == nil {
				if failed[m.ID] = text(err); err != nil { // logged once
					h.log.ErrorContext(ctx, "scheduled checkpoint failed", "vm", m.Name, "err", err)
				}
			}
		}
	}
}

// keepSchedule makes the checkpoint of a VM that is due, and removes those that have expired. A VM that
// is to be stopped does not change, and gets none.
func (h *Host) keepSchedule(ctx context.Context, m gateway.VM, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, scheduleLimit)
	defer cancel()
	if m.Ready && m.Desired == gateway.Running && checkpoint.Due(h.checkpoints.Of(m.ID), m.CheckpointPlan, now) {
		if _, err := h.Checkpoint(ctx, m.ID, gateway.CheckpointRequest{Kind: gateway.CheckpointScheduled}); err != nil && !errors.Is(err, errMerging) { // the latter: the next look tries again
			return err
		}
	}
	for _, c := range checkpoint.Expired(h.checkpoints.Of(m.ID), m.CheckpointPlan) {
		if err := h.RemoveCheckpoint(ctx, c.VM, c.ID); err != nil {
			return err
		}
	}
	return nil
}
