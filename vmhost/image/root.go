package image

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lodge/vmhost/inventory"
)

// tree has the files that every image gets beside its packages (root), those of one image (a
// directory of its name), and the last step of a build (customize.sh). Files that begin with "#!"
// are executable.
//
//go:embed root debian-12 customize.sh
var tree embed.FS

// mmdebstrapSteps is roughly how many lines "I: …" mmdebstrap 1.3 and 1.5 write. They are the unit
// of progress.
const mmdebstrapSteps = 10

// makeRoot fills the directory root with the guest's file tree.
func (b *build) makeRoot(ctx context.Context, root string) error {
	overlay := filepath.Join(b.dir, "overlay")
	if err := b.writeOverlay(overlay); err != nil {
		return err
	}
	args := []string{
		"--mode=root", "--variant=minbase", "--format=directory", "--architectures=amd64",
		"--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"3\"",
		"--include=" + packages(),
		// The tree is copied before the kernel is installed, so that the initramfs is made once.
		"--essential-hook=copy-in " + quote(filepath.Join(overlay, "root")+"/.") + " /",
		"--customize-hook=" + filepath.Join(overlay, "customize.sh"),
	}
	for _, path := range []string{"share/man", "share/info", "share/groff", "share/locale", "share/lintian", "share/doc", "lib/binfmt.d"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/"+path+"/*")
	}
	for _, path := range []string{"doc/*/copyright", "locale/locale.alias"} { // locale-gen(8) needs the second
		args = append(args, "--dpkgopt=path-include=/usr/share/"+path)
	}
	args = append(args, b.codename, root)
	sources := b.recipe.sources(b.codename)
	if sources != "" {
		args = append(args, "-")
	}
	var step int64
	b.report("packages", "starting", 0, mmdebstrapSteps)
	return b.run(ctx, &command{
		stdin: strings.NewReader(sources),
		line: func(line string) {
			if text, ok := strings.CutPrefix(line, "I: "); ok {
				step = min(step+1, mmdebstrapSteps)
				b.report("packages", strings.TrimRight(text, "."), step, mmdebstrapSteps)
			}
		},
	}, "mmdebstrap", args...)
}

// writeOverlay writes the embedded files and the generated ones below dir.
func (b *build) writeOverlay(dir string) error {
	root := filepath.Join(dir, "root")
	err := errors.Join(
		writeTree("root", root),
		writeTree("customize.sh", filepath.Join(dir, "customize.sh")),
		writeFile(filepath.Join(dir, "inventory.sh"), inventory.Script),
		writeFile(filepath.Join(root, "boot/grub/grub.cfg"), []byte(grubConfig)),
		writeFile(filepath.Join(root, "etc/fstab"), []byte(rootDevice+" / ext4 errors=remount-ro,x-systemd.growfs 0 1\n")),
	)
	if own := writeTree(b.recipe.Name, root); !errors.Is(own, fs.ErrNotExist) { // most images have no files of their own
		err = errors.Join(err, own)
	}
	if err != nil {
		return fmt.Errorf("write the image's own files: %w", err)
	}
	return nil
}

// writeTree writes an embedded file or directory to path.
func writeTree(name, path string) error {
	return fs.WalkDir(tree, name, func(at string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := tree.ReadFile(at)
		if err != nil {
			return err
		}
		return writeFile(path+strings.TrimPrefix(at, name), text)
	})
}

func writeFile(path string, text []byte) error {
	mode := os.FileMode(0o644)
	if bytes.HasPrefix(text, []byte("#!")) {
		mode = 0o755
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err = errors.Join(err, os.WriteFile(path, text, mode), os.Chmod(path, mode)); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// quote quotes for a shell and for mmdebstrap's hooks.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
