package controltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"time"

	"lodge/gateway"
)

// History implements api.Examiner: one checkpoint was made, and nothing was changed since.
func (h *Host) History(ctx context.Context, id gateway.ID, _ int) ([]gateway.HistoryStep, error) {
	c, err := h.Changes(ctx, id, gateway.ChangesQuery{})
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	return []gateway.HistoryStep{
		{To: "with-nginx", ToTime: at, Kind: gateway.CheckpointAsked, Changes: c},
		{From: "with-nginx", FromTime: at},
	}, err
}

// Changes implements api.Examiner: a web server was installed.
func (h *Host) Changes(_ context.Context, _ gateway.ID, q gateway.ChangesQuery) (gateway.Changes, error) {
	c := gateway.Changes{
		Packages: []gateway.PackageChange{
			{Name: "nginx", Change: gateway.Added, Version: "1.26.3-3", Manual: true}, {Name: "nginx-common", Change: gateway.Added, Version: "1.26.3-3"},
		},
		Accounts: []gateway.AccountChange{{Kind: "user", Name: "shop", Change: gateway.Added, ID: 1001}},
		Units:    []gateway.UnitChange{{Name: "nginx.service", Change: "enabled"}},
		Files: []gateway.FileChange{
			{Path: "/etc/nginx/nginx.conf", Change: gateway.Changed, What: []string{"content"}, Type: "file", Bytes: 700, Mode: "0644", Owner: "root", Group: "root"},
			{Path: "/srv/shop", Change: gateway.Added, Type: "directory", Mode: "0755", Owner: "shop", Group: "shop"},
			{Path: "/srv/shop/a\x1b[2Jb", Change: gateway.Added, Type: "file", Bytes: 2048, Mode: "0644", Owner: "shop", Group: "shop"},
		},
		Ports: []gateway.OpenPort{{Protocol: "tcp", Addr: "0.0.0.0:80", Program: "nginx"}},
	}
	if q.Text {
		c.Text = "--- image/etc/nginx/nginx.conf\n+++ now/etc/nginx/nginx.conf\n"
	}
	return c, nil
}

// Recipe implements api.Examiner: there is a large file, and in the VM "busy" another that has changed since.
func (h *Host) Recipe(_ context.Context, id gateway.ID, objects bool) (gateway.Recipe, error) {
	r := gateway.Recipe{UserData: "#cloud-config\npackages: [nginx]\n", LeftOut: []gateway.LeftOut{{Path: "/root/.netrc", Why: "its name is that of a secret"}}}
	if objects {
		large := largeFiles()
		if m, _ := h.Directory.ByID(id); m.Name != "busy" {
			large = large[:1]
		}
		for _, o := range large {
			r.Objects = append(r.Objects, o)
			r.UserData += "# " + o.Path + " " + o.Link() + "\n"
		}
	}
	return r, nil
}

func largeFiles() []gateway.RecipeObject {
	sum := sha256.Sum256(make([]byte, largeBytes))
	return []gateway.RecipeObject{
		{Path: "/srv/shop/large", Bytes: largeBytes, SHA256: hex.EncodeToString(sum[:])},
		{Path: "/srv/shop/log", Bytes: largeBytes + 1, SHA256: strings.Repeat("0", 64)},
	}
}

const largeBytes = 100_000

// RecipeFile implements api.Examiner.
func (h *Host) RecipeFile(_ context.Context, _ gateway.ID, o gateway.RecipeObject, w io.Writer) error {
	if o == largeFiles()[0] {
		_, err := w.Write(make([]byte, o.Bytes))
		return err
	}
	_, err := w.Write(make([]byte, o.Bytes-1)) // as far as it is certain
	return errors.Join(err, gateway.Errorf(gateway.KindConflict, "%s has changed since the recipe was made", o.Path))
}
