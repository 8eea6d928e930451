package api

import (
	"context"

	"lodge/gateway"
)

// Changes returns what was changed in a VM since its image: packages, accounts, units, files, and the
// ports that programs listen on. With text it has a unified diff of text files; those that may hold
// secrets are not in it.
func (s Session) Changes(ctx context.Context, name string, text bool) (gateway.Changes, error) {
	m, err := s.vm(verbDiff, name)
	if err != nil {
		return gateway.Changes{}, err
	}
	ctx, end := s.while(ctx, verbDiff, m.ID)
	defer end()
	c, err := s.api.Examiner.Changes(ctx, m.ID, text)
	return c, orDenied(ctx, err)
}

// Recipe returns cloud-init user data that makes the changes of a VM to a new one. Files that may hold
// secrets are not in it.
func (s Session) Recipe(ctx context.Context, name string) (gateway.Recipe, error) {
	m, err := s.vm(verbRecipe, name)
	if err != nil {
		return gateway.Recipe{}, err
	}
	ctx, end := s.while(ctx, verbRecipe, m.ID)
	defer end()
	r, err := s.api.Examiner.Recipe(ctx, m.ID)
	return r, orDenied(ctx, err)
}
