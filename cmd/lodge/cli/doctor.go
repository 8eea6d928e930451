package cli

import (
	"context"
	"io"

	"lodge/gateway"
	"lodge/gateway/api"
)

type doctorCmd struct{}

// Run shows the findings. It fails if something is broken.
func (*doctorCmd) Run(ctx context.Context, a *app) error {
	findings, err := a.client.Doctor(ctx)
	if err != nil {
		return err
	}
	broken := 0
	err = a.print(findings, func(w io.Writer) {
		for _, f := range findings {
			row(w, f.Grade, f.Check, f.Text)
			if f.Fix != "" {
				row(w, "", "", "→ "+f.Fix)
			}
		}
	})
	for _, f := range findings {
		if f.Grade == api.Broken {
			broken++
		}
	}
	if err == nil && broken > 0 {
		return gateway.Errorf(gateway.KindUnavailable, "%d of %d checks found something broken", broken, len(findings))
	}
	return err
}
