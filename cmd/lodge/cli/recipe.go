package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/minio/minio-go/v7"

	"lodge/gateway"
)

type recipeCmd struct {
	named

	Objects string `help:"Store large files as objects, below this prefix of a bucket; the new VM fetches them by links." placeholder:"VM/BUCKET/PREFIX" predictor:"vm"`
	Expires string `help:"How long the links are valid, 1m to 7d." default:"1d" placeholder:"TIME"`
}

// Help is the text below the usage.
func (*recipeCmd) Help() string {
	return "lodge recipe blog >blog.yaml && lodge new twin --user-data blog.yaml\n\n" +
		"It is what lodge diff shows, as user data of cloud-init: packages by name, accounts without passwords, files up to 64 KiB, owners, links and units. " +
		"Left out, and listed on standard error and in the file: larger files, and all that may hold a secret (private keys, tokens, passwords). Look through it before you pass it on.\n\n" +
		"lodge recipe blog --objects blog/recipe/ >blog.yaml stores larger files too, up to 1 GiB together, and has the new VM fetch them at its first boot, on this host or elsewhere. " +
		"Whoever has the file can read those objects until the links expire, or until lodge s3 creds blog --revoke. " +
		"Archives and databases are not looked into for secrets. The objects stay until a program in the VM removes them."
}

// Run prints a recipe.
func (c *recipeCmd) Run(ctx context.Context, a *app) error {
	to, err := parseStore(c.Objects, c.Expires)
	if err != nil {
		return err
	}
	recipe, err := a.client.Recipe(ctx, c.Name, c.Objects != "")
	if err != nil {
		return err
	}
	if c.Objects != "" {
		if err := a.storeObjects(ctx, c.Name, to, &recipe); err != nil {
			return err
		}
	}
	if a.JSON {
		return a.printJSON(recipe)
	}
	if len(recipe.UserData) > gateway.MaxUserDataBytes {
		_, _ = fmt.Fprintf(a.err, "lodge: the recipe has %d bytes; lodge new takes %d\n", len(recipe.UserData), gateway.MaxUserDataBytes) // a note
	}
	for _, l := range recipe.LeftOut {
		_, _ = fmt.Fprintf(a.err, "left out: %q: %s\n", l.Path, l.Why) // as above
	}
	return a.passed(strings.NewReader(recipe.UserData), false)
}

// recipeStore is where the large files of a recipe go.
type recipeStore struct {
	vm, bucket, prefix string
	life               time.Duration
}

func parseStore(objects, expires string) (to recipeStore, err error) {
	if objects == "" {
		return to, nil
	}
	var path string
	to.vm, path, _ = strings.Cut(objects, "/")
	to.bucket, to.prefix, _ = strings.Cut(path, "/")
	if to.vm == "" || to.bucket == "" {
		return to, gateway.Invalid("not a prefix of a bucket: %.100q", objects).WithHint("Write it as VM/BUCKET/PREFIX, such as blog/recipe/ or blog/files/recipe-.")
	}
	to.life, err = keyLife(expires)
	return to, err
}

// storeObjects uploads the large files of a recipe, and puts links to them into it. A file that has changed
// since the recipe was made fails: the recipe is to be made again.
func (a *app) storeObjects(ctx context.Context, vm string, to recipeStore, recipe *gateway.Recipe) error {
	if len(recipe.Objects) == 0 {
		return nil
	}
	client, err := a.s3Client(ctx, to.vm)
	if err != nil {
		return err
	}
	keys, err := a.client.NewS3Key(ctx, to.vm, to.life)
	if err != nil {
		return err
	}
	p := a.progress()
	defer p.end()
	for _, o := range recipe.Objects {
		if err := a.storeObject(ctx, client, vm, to, o, p); err != nil {
			return err
		}
		link, err := presign(ctx, keys, to.bucket, to.prefix+o.SHA256, false)
		if err != nil {
			return err
		}
		recipe.UserData = strings.ReplaceAll(recipe.UserData, o.Link(), link)
	}
	p.end()
	if err := a.warnPublic(ctx, to.vm, to.bucket); err != nil {
		a.warnUnread(to.vm, to.bucket, err)
	}
	note := fmt.Sprintf("stored: %s in %s/%s; links valid until %s", english.Plural(len(recipe.Objects), "large file", ""), to.vm, to.bucket, day(keys.Expires))
	if !a.JSON {
		_, _ = fmt.Fprintln(a.err, note) // as above
	}
	head, rest, _ := strings.Cut(recipe.UserData, "\n")
	recipe.UserData = head + "\n# " + note + "\n" + rest
	return nil
}

// storeObject uploads one file. Its key is the sum of its content: what is there already is the same.
func (a *app) storeObject(ctx context.Context, client *minio.Client, vm string, to recipeStore, o gateway.RecipeObject, p *progress) error {
	from, err := a.client.RecipeFile(ctx, vm, o)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was only read
	shown := &counter{p: p, step: gateway.Progress{Phase: "upload", Text: o.Path, Total: o.Bytes}, began: time.Now()}
	read := &keepingError{r: from}
	_, err = client.PutObject(ctx, to.bucket, to.prefix+o.SHA256, read, o.Bytes, minio.PutObjectOptions{Progress: shown})
	if read.err != nil {
		return gateway.Errorf(gateway.KindConflict, "%q was not read to its end: %v", o.Path, read.err).Because(err).
			WithHint("It may have changed since the recipe was made, as a log or a database does. Stop what writes to it, or the VM, and try again.")
	}
	if err != nil {
		return s3Error(ctx, to.vm, err)
	}
	return nil
}

// keepingError keeps the error of a read, which S3's client wraps in one of its own.
type keepingError struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (k *keepingError) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.err = err
	}
	return n, err
}
