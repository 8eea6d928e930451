package mail

import (
	"context"

	"lodge/gateway"
)

// A Server is a part of the VMs' checkpoints. A mark is what a VM has got of its mail. Rewind makes what came after it
// wait again, so that it is delivered once more into the disk that went back; what that has already is not doubled. The
// host's record stays as it is: no mail is removed, flags and folders are not set back, what was removed meanwhile
// (by IMAP, a verb, or the retention that the owner has set) stays so, and what the VM has sent is not sent again.
var _ gateway.Part = (*Server)(nil)

// Mark implements gateway.Part. Mail that arrives waits until release, and gets 451 4.3.2 if that takes seconds.
func (s *Server) Mark(_ context.Context, vm gateway.ID, id gateway.CheckpointID) (release func(), err error) {
	return s.store.Mark(vm, string(id))
}

// Rewind implements gateway.Part. The VM does not run: what is delivered into its present disk would be lost with it.
func (s *Server) Rewind(_ context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	defer s.replica.Pause(vm)()
	return s.store.Rewind(vm, string(id))
}

// Fork implements gateway.Part. The fork has an empty mailbox: its old mail is on its disk, and in the mailbox of its
// source.
func (s *Server) Fork(_ context.Context, vm gateway.ID, id gateway.CheckpointID, _ gateway.ID) error {
	return s.store.HasMark(vm, string(id))
}

// Drop implements gateway.Part.
func (s *Server) Drop(_ context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	return s.store.DropMark(vm, string(id))
}

// Marks implements gateway.Part.
func (s *Server) Marks(_ context.Context, vm gateway.ID) (ids []gateway.CheckpointID, err error) {
	names, err := s.store.Marks(vm)
	for _, name := range names {
		ids = append(ids, gateway.CheckpointID(name))
	}
	return ids, err
}
