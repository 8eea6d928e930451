package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

type checkpointCmd struct {
	Make checkpointMakeCmd `cmd:"" default:"withargs" help:"Record the state of a VM, or set how often that is done."`
	Rm   checkpointRmCmd   `cmd:"" help:"Remove checkpoints."`
}

type checkpointMakeCmd struct {
	named

	Checkpoint string `arg:"" help:"A name for the checkpoint; without one it is named by the time." name:"name" optional:""`
	Quiesce    bool   `help:"Freeze the guest's file systems meanwhile, for 2 s at most, by its guest agent."`
	Memory     bool   `help:"Keep the memory of the running guest too: a rollback resumes it, without a boot."`
	Every      string `help:"Make checkpoints of the running VM by a schedule, such as 1h; off ends it." placeholder:"TIME" xor:"once"`
	Keep       int    `help:"With --every: how many scheduled checkpoints stay." default:"24" placeholder:"N"`
}

// Help is the text below the usage.
func (*checkpointMakeCmd) Help() string {
	return "A checkpoint covers disk, mailbox, buckets and shares. The VM runs on meanwhile; its disk is recorded as after a loss of power, or with --quiesce after all is written.\n\n" +
		"With --every, lodged makes them, and removes the oldest scheduled ones past --keep; those that you asked for stay.\n\n" +
		"--memory takes the space of the memory in use, and mail and objects of the VM wait for as long as it is written, 10 s at most."
}

// Run makes a checkpoint, or sets the schedule.
func (c *checkpointMakeCmd) Run(ctx context.Context, a *app) error {
	if c.Every != "" {
		return c.plan(ctx, a)
	}
	made, err := a.client.Checkpoint(ctx, c.Name, gateway.CheckpointRequest{Name: c.Checkpoint, Quiesce: c.Quiesce, Memory: c.Memory})
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) {
		row(w, fmt.Sprintf("%s is recorded as %s. To go back: lodge rollback %s %s", c.Name, made.Name, c.Name, made.Name))
	})
}

func (c *checkpointMakeCmd) plan(ctx context.Context, a *app) error {
	if c.Checkpoint != "" || c.Quiesce || c.Memory {
		return gateway.Invalid("a schedule has no name, no --quiesce and no --memory").WithHint("An example: lodge checkpoint %s --every 1h --keep 24", c.Name)
	}
	var plan api.CheckpointPlan
	if c.Every != "off" {
		every, err := time.ParseDuration(c.Every)
		if err != nil || every%time.Second != 0 {
			return gateway.Invalid("not a time: %q", c.Every).WithHint("An example: lodge checkpoint %s --every 1h30m --keep 24, or --every off", c.Name)
		}
		plan = api.CheckpointPlan{EverySeconds: int64(every / time.Second), Keep: c.Keep}
		if every <= 0 {
			plan.EverySeconds = -1
		}
	}
	vm, err := a.client.SetCheckpointPlan(ctx, c.Name, plan)
	if err != nil {
		return err
	}
	return a.print(vm, func(w io.Writer) { describe(w, vm) })
}

type checkpointRmCmd struct {
	named

	Checkpoints []string `arg:"" help:"Names of checkpoints, of lodge checkpoints." name:"name"`
}

// Run removes checkpoints. What they alone needed of the disk is freed.
func (c *checkpointRmCmd) Run(ctx context.Context, a *app) error {
	remove := func(which string) (string, error) { return which, a.client.RemoveCheckpoint(ctx, c.Name, which) }
	return each(c.Checkpoints, remove, func(which string) error {
		return a.print(map[string]string{"removed": which}, func(w io.Writer) { row(w, "The checkpoint "+which+" is removed.") })
	})
}

type checkpointsCmd struct{ named }

// Help is the text below the usage.
func (*checkpointsCmd) Help() string {
	return "The size is what was written to the disk since the checkpoint before, with what a merge of its layers has copied, and the memory if that is kept."
}

// Run lists the checkpoints of a VM.
func (c *checkpointsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Checkpoints(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No checkpoints. Make one: lodge checkpoint "+c.Name)
			return
		}
		row(w, "NAME", "CREATED", "BY", "SIZE")
		for _, p := range all {
			row(w, p.Name, p.Created.Local().Format(time.DateTime), madeBy(p), size(p.Bytes))
		}
	})
}

// madeBy names who made a checkpoint.
func madeBy(p api.Checkpoint) string {
	by := map[gateway.CheckpointKind]string{
		gateway.CheckpointAsked: "you", gateway.CheckpointInside: "the VM", gateway.CheckpointScheduled: "schedule", gateway.CheckpointUndo: "rollback", gateway.CheckpointFork: "fork",
	}[p.Kind]
	if p.Quiesced {
		by += ", frozen"
	}
	if p.Memory {
		by += ", with memory"
	}
	return by
}

type rollbackCmd struct {
	named

	Checkpoint string `arg:"" help:"One of lodge checkpoints; without it, the newest that no rollback has made." name:"checkpoint" optional:""`
	Yes        bool   `help:"Do not ask." short:"y"`
}

// Help is the text below the usage.
func (*rollbackCmd) Help() string {
	return "The VM is ended at once, and started again if it ran: from the memory of the checkpoint if that is kept. Its disk, buckets and shares become those of the checkpoint. Mail that came after it is delivered again. " +
		"Grants, domains and settings stay as they are, and a port that is closed to links now stays so.\n\n" +
		"Before it, the present state is recorded as a checkpoint too: a second rollback, to that, undoes the first."
}

// Run rolls a VM back.
func (c *rollbackCmd) Run(ctx context.Context, a *app) error {
	if !c.Yes {
		to := c.Checkpoint
		if to == "" {
			to = "its newest checkpoint"
		}
		if err := a.confirm("End " + c.Name + " now, and give it the state of " + to + "?"); err != nil {
			return err
		}
	}
	undo, err := a.client.Rollback(ctx, c.Name, c.Checkpoint)
	if err != nil {
		return err
	}
	return a.print(undo, func(w io.Writer) {
		row(w, fmt.Sprintf("%s is rolled back. To undo that: lodge rollback %s %s", c.Name, c.Name, undo.Name))
	})
}

type forkCmd struct {
	From string `arg:"" help:"The VM to fork; with @ and a checkpoint, that state of it." name:"vm[@checkpoint]" predictor:"vm"`
	Name string `arg:"" help:"The new VM's name." name:"new"`
	Wait bool   `help:"Wait until ssh works."`
}

// Help is the text below the usage.
func (*forkCmd) Help() string {
	return "lodge fork blog@before-upgrade trial\n\n" +
		"The new VM has the disk and the objects of the other one, which runs on, and its own name, address, host key, machine id and credentials. " +
		"It shares nothing with anybody, and has the settings of a new VM. It boots; memory is not copied. Its mailbox on the host begins empty."
}

// Run forks a VM.
func (c *forkCmd) Run(ctx context.Context, a *app) error {
	from, checkpoint, _ := strings.Cut(c.From, "@")
	if strings.HasSuffix(c.From, "@") {
		return gateway.Invalid("there is no checkpoint behind the @").WithHint("lodge checkpoints %s lists them.", from)
	}
	if err := gateway.CheckName(c.Name); err != nil {
		return err
	}
	p := a.progress()
	defer p.end()
	vm, err := a.client.Fork(ctx, from, checkpoint, c.Name, p.show)
	if err != nil {
		return err
	}
	if c.Wait {
		if vm, err = a.client.Wait(ctx, c.Name, api.SSH, p.show); err != nil {
			return err
		}
	}
	p.end()
	return a.print(vm, func(w io.Writer) { describe(w, vm) })
}
