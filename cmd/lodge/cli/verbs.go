package cli

import (
	"fmt"
	"io"

	"lodge/gateway/api"
)

// named is a verb's VM.
type named struct {
	Name string `arg:"" help:"The VM's name."`
}

// say answers with the VM after a verb, and one line of text.
func (a *app) say(v api.VM, err error) error {
	if err != nil {
		return err
	}
	return a.print(v, func(w io.Writer) { row(w, fmt.Sprintf("%s is %s.", v.Name, v.State)) })
}
