package api

import (
	"context"
	"io"

	"lodge/gateway"
)

// Changes returns what was changed in a VM from one moment to another: packages, accounts, units, files,
// and the ports that programs listen on. Text files that may hold secrets are not in the unified diff.
func (s Session) Changes(ctx context.Context, name string, q gateway.ChangesQuery) (gateway.Changes, error) {
	m, err := s.vm(verbDiff, name)
	if err != nil {
		return gateway.Changes{}, err
	}
	ctx, end := s.while(ctx, verbDiff, m.ID)
	defer end()
	c, err := s.api.Examiner.Changes(ctx, m.ID, q)
	return c, orDenied(ctx, err)
}

// History returns what was changed in a VM from checkpoint to checkpoint, and from the last to now: the
// newest steps, at most last of them.
func (s Session) History(ctx context.Context, name string, last int) ([]gateway.HistoryStep, error) {
	m, err := s.vm(verbHistory, name)
	if err != nil {
		return nil, err
	}
	ctx, end := s.while(ctx, verbHistory, m.ID)
	defer end()
	steps, err := s.api.Examiner.History(ctx, m.ID, last)
	return steps, orDenied(ctx, err)
}

// Recipe returns cloud-init user data that makes the changes of a VM to a new one. Files that may hold
// secrets are not in it. With objects it fetches large files; else they are left out.
func (s Session) Recipe(ctx context.Context, name string, objects bool) (gateway.Recipe, error) {
	m, err := s.vm(verbRecipe, name)
	if err != nil {
		return gateway.Recipe{}, err
	}
	ctx, end := s.while(ctx, verbRecipe, m.ID)
	defer end()
	r, err := s.api.Examiner.Recipe(ctx, m.ID, objects)
	return r, orDenied(ctx, err)
}

// RecipeFile writes the content of a large file of a recipe to w. After an error it is incomplete.
func (s Session) RecipeFile(ctx context.Context, name string, o gateway.RecipeObject, w io.Writer) error {
	m, err := s.vm(verbRecipe, name)
	if err != nil {
		return err
	}
	ctx, end := s.while(ctx, verbRecipe, m.ID)
	defer end()
	return orDenied(ctx, s.api.Examiner.RecipeFile(ctx, m.ID, o, w))
}
