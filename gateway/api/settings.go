package api

import (
	"context"

	"lodge/gateway"
)

// Settings are what can be changed of a VM. A field that is absent stays as it is.
type Settings struct {
	WakeOnRequest  *bool `json:"wake_on_request,omitempty"` // whether a request starts the stopped VM, if its visitor may open the page
	RollbackInside *bool `json:"rollback_inside,omitempty"` // whether programs in the VM may roll it back to a checkpoint
}

// Set changes the settings of a VM.
func (s Session) Set(ctx context.Context, name string, settings Settings) (VM, error) {
	m, err := s.vm(verbSet, name)
	if err != nil {
		return VM{}, err
	}
	if settings == (Settings{}) {
		return VM{}, gateway.Invalid("there is no setting to change").WithHint("An example: lodge set %s --wake-on-request", m.Name)
	}
	m, err = s.update(ctx, verbSet, m.ID, func(m *gateway.VM) error {
		if settings.WakeOnRequest != nil {
			m.WakeOnRequest = *settings.WakeOnRequest
		}
		if settings.RollbackInside != nil {
			m.RollbackInside = *settings.RollbackInside
		}
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	return s.shown(ctx, m), nil
}
