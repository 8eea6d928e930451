package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"lodge/gateway/api"
)

// named is the VM of a verb.
type named struct {
	Name string `arg:"" help:"The VM's name." name:"vm" predictor:"vm"`
}

// severalNamed are the VMs of a verb that takes several.
type severalNamed struct {
	Names []string `arg:"" help:"The VMs' names." name:"vm" predictor:"vm"`
}

// show answers with a VM after a verb, and one line of text.
func (a *app) show(v api.VM) error {
	return a.print(v, func(w io.Writer) { row(w, fmt.Sprintf("%s is %s.", v.Name, v.State)) })
}

// atOnce is how many VMs a verb works on at the same time.
const atOnce = 4

// failures are the errors of a verb on several VMs, in the order of the VMs. The first decides the
// exit code.
type failures []error

// Error implements error.
func (f failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap lets errors.Is and errors.As through.
func (f failures) Unwrap() []error { return f }

// together joins errors that are shown one by one; nil ones are left out.
func together(errs ...error) error {
	var all failures
	for _, err := range errs {
		if several, ok := errors.AsType[failures](err); ok {
			all = append(all, several...)
		} else if err != nil {
			all = append(all, err)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// each runs verb for every name, and shows the results in the order of the names as they come. A
// failure does not end the others; with --json an answer is one line per VM.
func each[T any](names []string, verb func(name string) (T, error), show func(T) error) error {
	type result struct {
		value T
		err   error
	}
	names = unique(names)
	running := make(chan struct{}, atOnce)
	results := make([]chan result, len(names))
	for i, name := range names {
		results[i] = make(chan result, 1)
		go func() {
			running <- struct{}{}
			defer func() { <-running }()
			value, err := verb(name)
			results[i] <- result{value, err}
		}()
	}
	var failed failures
	for _, one := range results {
		r := <-one
		if r.err == nil {
			r.err = show(r.value)
		}
		if r.err != nil {
			failed = append(failed, r.err)
		}
	}
	return together(failed...)
}

// unique returns names without repetitions.
func unique(names []string) (all []string) {
	for _, name := range names {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
