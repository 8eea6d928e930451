package template

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// maxNameBytes is the longest name of a directory on Linux.
const maxNameBytes = 255

// Remove removes a template. Its disk stays while it is in use, as the base of a VM's disk. Errors:
// KindNotFound when there is none.
func (s *Store) Remove(id string, inUse bool) error {
	dir := filepath.Join(s.dir, id)
	if id == "" || id[0] == '.' || strings.ContainsAny(id, "/\x00") || len(id) > maxNameBytes {
		return missing(id)
	}
	switch err := s.removeManifest(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return missing(id)
	case err != nil:
		return fmt.Errorf("remove template: %w", err)
	}
	if err := durable.Sync(dir); err != nil {
		return fmt.Errorf("remove template: %w", err)
	}
	return s.removeUnlessUsed(dir, inUse)
}

func (s *Store) removeManifest(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.Remove(filepath.Join(dir, manifestFile))
}

func missing(id string) error {
	return gateway.Errorf(gateway.KindNotFound, "there is no template %q", id).WithHint("lodge image ls lists the templates.")
}

func (s *Store) removeUnlessUsed(dir string, inUse bool) error {
	if !inUse {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove template: %w", err)
		}
		return nil
	}
	if err := os.Remove(filepath.Join(dir, memoryFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove template: %w", err)
	}
	return nil
}

// Sweep removes what is left of templates that were removed, and those whose manifest is damaged,
// except disks in use. It removes no template whose manifest it cannot read.
func (s *Store) Sweep(inUse func(id string) bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list templates: %w", err)
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue // a draft, or a file of somebody else
		}
		_, err := readManifest(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errManifest) {
			err = s.removeUnlessUsed(dir, inUse(e.Name()))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
