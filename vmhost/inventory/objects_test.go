package inventory_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/inventory"
)

// What a large file has is found wherever it is, also across the parts in which it is read.
func TestScan(t *testing.T) {
	const key, token = "-----BEGIN OPENSSH PRIVATE KEY-----", "ghp_0123456789012345678901234567890123456789"
	text := func(bytes int) string { return strings.Repeat("just some words\n", bytes/16) }
	binary := string([]byte{0x7f, 'E', 'L', 'F', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for name, row := range map[string]struct {
		path, content string
		secret        bool
	}{
		"text":                  {"/srv/a", text(5 << 20), false},
		"name":                  {"/srv/id_ed25519", text(1 << 20), true},
		"private key":           {"/srv/a", text(3<<20) + key + text(1<<20), true},
		"key at the end":        {"/srv/a", text(3<<20) + key, true},
		"key between parts":     {"/srv/a", text(1<<20+8<<10-16) + "12345678" + key + text(1<<20), true},
		"password":              {"/srv/a", text(1<<20) + "db_password = hunter22\n" + text(1<<20), true},
		"program":               {"/srv/a", strings.Repeat(binary, 1<<16) + "password: %s\ntoken=" + strings.Repeat(binary, 1<<16), false},
		"token in a program":    {"/srv/a", strings.Repeat(binary, 1<<16) + token + strings.Repeat(binary, 1<<16), true},
		"key behind a program":  {"/srv/a", strings.Repeat(binary, 1<<17) + text(16) + key, true},
		"hash of a password":    {"/srv/a", text(2<<20) + "\nmaria:$6$salt$hash\n", true},
		"user in an address":    {"/srv/a", text(1<<20) + "postgres://shop:hunter22@db/shop\n", true},
		"address without a key": {"/srv/a", text(1<<20) + "https://shop.example:8080/x@y\n", false},
	} {
		s, err := inventory.Scan(row.path, iotest.HalfReader(strings.NewReader(row.content)))
		gatewaytest.Must(t, err)
		sum := sha256.Sum256([]byte(row.content))
		want := gateway.RecipeObject{Path: row.path, Bytes: int64(len(row.content)), SHA256: hex.EncodeToString(sum[:])}
		if diff := cmp.Diff(want, s.Object); diff != "" || (s.Why != "") != row.secret {
			t.Errorf("%s: left out %q; -want +got:\n%s", name, s.Why, diff)
		}
	}
	cut := errors.New("cut off")
	if _, err := inventory.Scan("/srv/a", io.MultiReader(strings.NewReader("x"), iotest.ErrReader(cut))); !errors.Is(err, cut) {
		t.Errorf("a file that was cut off: %v", err)
	}
}

// The limits on objects hold, and files without another content are none.
func TestLarge(t *testing.T) {
	change := func(path string, bytes int64, change string, what ...string) gateway.FileChange {
		return gateway.FileChange{Path: path, Type: "file", Change: change, What: what, Bytes: bytes}
	}
	all := []gateway.FileChange{
		change("/small", inventory.MaxFileBytes, gateway.Added),
		change("/large", inventory.MaxFileBytes+1, gateway.Added),
		change("/gone", 1<<20, gateway.Gone),
		change("/mode", 1<<20, gateway.Changed, "mode"),
		change("/content", 1<<20, gateway.Changed, "content", "mode"),
		change("/type", 1<<20, gateway.Changed, "type"),
		{Path: "/directory", Type: "directory", Change: gateway.Added, Bytes: 1 << 20},
		change("/huge", gateway.MaxRecipeObjectBytes, gateway.Added),
	}
	for i := range gateway.MaxRecipeObjects {
		all = append(all, change(fmt.Sprintf("/more%d", i), 1<<20, gateway.Added))
	}
	got := inventory.Large(all)
	if len(got) != gateway.MaxRecipeObjects || got[0].Path != "/large" || got[1].Path != "/content" || got[2].Path != "/more0" {
		t.Errorf("%d files, first %v", len(got), got[:3])
	}
}

// objectRecipe is a recipe whose only files are large, and their content.
func objectRecipe(t *testing.T, dir string, content map[string]string) gateway.Recipe {
	t.Helper()
	var c gateway.Changes
	objects := inventory.Objects{}
	for _, name := range []string{"large", "key.pem", "missing", "secret"} {
		at := filepath.Join(dir, name)
		f := gateway.FileChange{Path: at, Type: "file", Change: gateway.Added, Bytes: 100_000, Mode: "0640", Owner: "root", Group: "daemon"}
		c.Files = append(c.Files, f)
		if text, ok := content[name]; ok {
			s, err := inventory.Scan(at, strings.NewReader(text))
			gatewaytest.Must(t, err)
			objects[at] = s
		}
	}
	r, err := inventory.Recipe("blog", c, func(string) ([]byte, bool) { return nil, false }, objects)
	gatewaytest.Must(t, err)
	return r
}

// A large file is fetched, with its owner and mode, or not at all. What may be a secret is left out.
func TestObjectsAreFetched(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's $HOME", "-new")
	content := map[string]string{"large": strings.Repeat("large\x00", 20_000), "key.pem": strings.Repeat("-----BEGIN PRIVATE KEY-----\n", 4000), "secret": "x"}
	r := objectRecipe(t, dir, content)
	if len(r.Objects) != 1 || r.Objects[0].Path != filepath.Join(dir, "large") || len(r.LeftOut) != 3 {
		t.Fatalf("objects %v, left out %v", r.Objects, r.LeftOut)
	}
	var served atomic.Value
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("X-Amz-Signature") != "a" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = io.WriteString(w, served.Load().(string)) //nolint:forcetypeassert // it is one; curl reports it
	}))
	defer web.Close()
	run := func() (string, error) {
		t.Helper()
		var config struct {
			Commands [][]string `yaml:"runcmd"`
		}
		text := strings.ReplaceAll(r.UserData, r.Objects[0].Link(), web.URL+"/box/"+r.Objects[0].SHA256+"?X-Amz-Expires=86399&X-Amz-Credential=A%2F2026&X-Amz-Signature=a")
		gatewaytest.Must(t, yaml.Unmarshal([]byte(text), &config))
		if len(config.Commands) != 1 {
			t.Fatalf("commands: %q", config.Commands)
		}
		out, err := exec.CommandContext(t.Context(), config.Commands[0][0], config.Commands[0][1:]...).CombinedOutput()
		return string(out), err
	}
	served.Store("another content")
	if out, err := run(); err == nil || !strings.Contains(out, "not fetched: "+r.Objects[0].Path) {
		t.Errorf("a content that is another: %v, %s", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	served.Store(content["large"])
	if out, err := run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(r.Objects[0].Path)
	gatewaytest.Must(t, err)
	info, err := os.Stat(r.Objects[0].Path)
	gatewaytest.Must(t, err)
	if string(got) != content["large"] || info.Mode().Perm() != 0o640 {
		t.Errorf("%d bytes, %v", len(got), info.Mode())
	}
}
