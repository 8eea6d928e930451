package gateway

import "log/slog"

// LogVM returns the two keys that identify a VM in a log line: vm, its name, and vm_id, its UUID.
// The zero Identity gives none.
func LogVM(vm Identity) slog.Attr {
	if !vm.Known() {
		return slog.Attr{}
	}
	return slog.Group("", slog.String("vm", vm.Name), slog.String("vm_id", vm.ID.String()))
}
