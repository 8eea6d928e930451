package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"lodge/gateway"
)

type s3FsckCmd struct {
	Name string `arg:"" help:"The VM; without it, all of them." name:"vm" optional:"" predictor:"vm"`
}

// Help is the text below the usage.
func (*s3FsckCmd) Help() string {
	return "All objects are read and compared with their checksums, while requests go on. What is damaged is listed, and the exit code is 1. " +
		"Such an object is refused when it is read; it can be stored again, or removed."
}

// Run checks what is stored.
func (c *s3FsckCmd) Run(ctx context.Context, a *app) error {
	found, err := a.client.S3Damage(ctx, c.Name)
	if err != nil {
		return err
	}
	err = a.print(found, func(w io.Writer) {
		if len(found) == 0 {
			row(w, "Nothing is damaged.")
			return
		}
		row(w, "VM", "OBJECT", "FILE", "DAMAGE")
		for _, d := range found {
			row(w, d.VM, strings.TrimSuffix(d.Bucket+"/"+d.Key, "/"), d.File, d.Reason)
		}
	})
	if err == nil && len(found) > 0 {
		err = gateway.Errorf(gateway.KindInternal, "%s damaged", map[bool]string{true: "1 thing is", false: fmt.Sprintf("%d things are", len(found))}[len(found) == 1]).
			WithHint("Store the objects again, or remove them. Check the disk: journalctl -k")
	}
	return err
}
