package vmhost

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"

	"lodge/gateway"
	"lodge/vmhost/inventory"
)

// maxReaderObjects is how many bytes of large files are read while the VM is off: a reader has room for
// little more than that (see readerOutputBytes).
const maxReaderObjects = 64 << 20

// Recipe returns cloud-init user data that makes the changes of a VM to a new one. With objects it fetches
// large files, as they are now: RecipeFile reads them. Errors are those of Changes.
func (h *Host) Recipe(ctx context.Context, id gateway.ID, objects bool) (gateway.Recipe, error) {
	var r gateway.Recipe
	err := h.examine(ctx, id, nil, func(m gateway.VM, g shell) error {
		found, err := inspect(g)
		if err != nil {
			return err
		}
		c, err := found.sinceImage(m)
		if err != nil {
			return err
		}
		var contents map[string][]byte
		if err := g.runAll(files(written(c.Files), &contents)...); err != nil {
			return err
		}
		var large inventory.Objects
		if objects {
			if large, err = scan(g, inventory.Large(c.Files)); err != nil {
				return err
			}
		}
		r, err = inventory.Recipe(m.Name, c, func(path string) ([]byte, bool) {
			data, ok := contents[path]
			return data, ok
		}, large)
		return err
	})
	return r, err
}

// scan examines large files. Those that cannot be read are not among the result.
func scan(g shell, all []gateway.FileChange) (inventory.Objects, error) {
	found := inventory.Objects{}
	var paths []string
	_, off := g.(*reader)
	left := int64(maxReaderObjects)
	for _, f := range all {
		if off && f.Bytes > left {
			found[f.Path] = inventory.Scanned{Why: "it is too large to be read while the VM is off: start it first"}
			continue
		}
		left -= f.Bytes
		paths = append(paths, f.Path)
	}
	if len(paths) == 0 {
		return found, nil
	}
	return found, g.runAll(archive(paths, func(r io.Reader) error {
		return eachFile(io.LimitReader(r, 2*gateway.MaxRecipeObjectBytes), func(at string, content io.Reader) error {
			s, err := inventory.Scan(at, content)
			if err == nil && s.Object.Bytes > inventory.MaxFileBytes {
				found[at] = s
			}
			return err
		})
	}))
}

// eachFile calls f with each file of an archive.
func eachFile(r io.Reader, f func(at string, content io.Reader) error) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if h.Typeflag == tar.TypeReg {
			if err := f(path.Join("/", h.Name), t); err != nil {
				return err
			}
		}
	}
}

// RecipeFile writes the content of a large file of a recipe to w. KindConflict: it has changed since, and
// not all of it was written.
func (h *Host) RecipeFile(ctx context.Context, id gateway.ID, o gateway.RecipeObject, w io.Writer) error {
	if !path.IsAbs(o.Path) || path.Clean(o.Path) != o.Path || o.Bytes <= 0 || o.Bytes > gateway.MaxRecipeObjectBytes {
		return gateway.Invalid("not a large file of a recipe: %.100q", o.Path)
	}
	return h.examine(ctx, id, nil, func(_ gateway.VM, g shell) error {
		if _, off := g.(*reader); off && o.Bytes > maxReaderObjects {
			return errRecipeChanged(o)
		}
		return readObject(g, o, w)
	})
}

// readObject writes the content of a large file to w.
func readObject(g shell, o gateway.RecipeObject, w io.Writer) error {
	return g.runAll(archive([]string{o.Path}, func(r io.Reader) error {
		t := tar.NewReader(r)
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF), err == nil && (h.Typeflag != tar.TypeReg || h.Size != o.Bytes):
			return errRecipeChanged(o)
		case err != nil:
			return fmt.Errorf("read archive: %w", err)
		}
		return copyObject(w, t, o)
	}))
}

func errRecipeChanged(o gateway.RecipeObject) error {
	return gateway.Errorf(gateway.KindConflict, "%s has changed since the recipe was made", o.Path).WithHint("Make the recipe again.")
}

// copyObject copies all of an object, and its last bytes only if it has the right sum: what is not what was
// examined for secrets is never complete.
func copyObject(w io.Writer, r io.Reader, o gateway.RecipeObject) error {
	sum := sha256.New()
	last := min(o.Bytes, 1<<10)
	if _, err := io.CopyN(io.MultiWriter(w, sum), r, o.Bytes-last); err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	rest := make([]byte, last)
	if _, err := io.ReadFull(r, rest); err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	if sum.Write(rest); hex.EncodeToString(sum.Sum(nil)) != o.SHA256 {
		return errRecipeChanged(o)
	}
	_, err := w.Write(rest)
	return err
}
