package control

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

var update = flag.Bool("update", false, "write docs/api.md")

const docsFile = "../../docs/api.md"

const docsHead = `# API

<!-- Made from the routes of gateway/control: go test ./gateway/control -run Docs -update -->

lodged answers HTTP on the unix socket ` + "`/run/lodge/lodged.sock`" + `. Root and the members of group ` + "`lodge`" + ` may use it, as the owner of the host.

    curl --unix-socket /run/lodge/lodged.sock http://lodged/v1/vms

Bodies and answers are JSON, unless another type is named. An unknown field in a body is an error, and an empty body has
no fields. An error has the type Error and a status by its kind: invalid 400, denied 403, not-found 404, taken and
conflict 409, unavailable 503, no-space 507, internal 500.

A stream has one Event per line. The last has the result or the error, all others a step. A stream that ends without
either was cut off. Closing the connection cancels the work.

## Verbs
`

// docs/api.md is what the routes and the types of their bodies and answers are.
func TestDocs(t *testing.T) {
	comments := fieldComments(t, "..", "../api", ".")
	var out strings.Builder
	out.WriteString(docsHead)
	types := []reflect.Type{reflect.TypeFor[Event](), reflect.TypeFor[gateway.Error]()}
	for _, r := range New(Config{Logger: slog.New(slog.DiscardHandler)}).routes() {
		fmt.Fprintf(&out, "\n### %s %s\n\n%s\n", r.method, r.path, r.doc)
		var lines []string
		for _, part := range []struct {
			label string
			value any
		}{{"Body", r.in}, {"Answer", r.out}} {
			text, typ := describe(part.value)
			if typ != nil && !slices.Contains(types, typ) {
				types = append(types, typ)
			}
			if text != "" {
				lines = append(lines, fmt.Sprintf("- %s: %s\n", part.label, text))
			}
		}
		if len(lines) > 0 {
			out.WriteString("\n" + strings.Join(lines, ""))
		}
	}
	writeTypes(&out, types, comments)
	if *update {
		if err := os.WriteFile(docsFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(docsFile)
	if diff := cmp.Diff(string(have), out.String()); err != nil || diff != "" {
		t.Errorf("docs/api.md is stale: go test ./gateway/control -run Docs -update (%v)\n%s", err, diff)
	}
}

// describe is a body or an answer in words, and the type that has to be explained.
func describe(v any) (string, reflect.Type) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case media:
		return "`" + string(v) + "`", nil
	case stream:
		return "a stream that ends with " + reflect.TypeOf(v.result).Name(), reflect.TypeOf(v.result)
	}
	typ := reflect.TypeOf(v)
	if typ.Kind() == reflect.Slice {
		return "a list of " + typ.Elem().Name(), typ.Elem()
	}
	return typ.Name(), typ
}

// writeTypes writes a table per type, and of those that their fields have.
func writeTypes(out *strings.Builder, types []reflect.Type, comments map[string]string) {
	out.WriteString("\n## Types\n")
	for i := 0; i < len(types); i++ { // it grows
		rows := fields(types[i], comments, func(used reflect.Type) {
			if !slices.Contains(types, used) {
				types = append(types, used)
			}
		})
		fmt.Fprintf(out, "\n### %s\n\n| field | type | meaning |\n|---|---|---|\n%s", types[i].Name(), strings.Join(rows, ""))
	}
}

// fields are the rows of a type's table; those of embedded types are its own.
func fields(typ reflect.Type, comments map[string]string, used func(reflect.Type)) (rows []string) {
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			rows = append(rows, fields(f.Type, comments, used)...)
			continue
		case name == "-":
			continue
		}
		if options == "omitempty" {
			name += "?"
		}
		comment := comments[path.Base(typ.PkgPath())+"."+typ.Name()+"."+f.Name]
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", name, typeName(f.Type, used), comment))
	}
	return rows
}

// typeName is a Go type as JSON has it.
func typeName(typ reflect.Type, used func(reflect.Type)) string {
	switch typ {
	case reflect.TypeFor[time.Time]():
		return "time (RFC 3339)"
	case reflect.TypeFor[gateway.ID]():
		return "UUID"
	case reflect.TypeFor[netip.Addr]():
		return "IP address"
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return typeName(typ.Elem(), used)
	case reflect.Slice:
		return "list of " + typeName(typ.Elem(), used)
	case reflect.Struct:
		used(typ)
		return typ.Name()
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	default:
		return "integer"
	}
}

// fieldComments finds the comment behind each field in the packages in dirs, by "package.Type.Field".
func fieldComments(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						for _, id := range f.Names {
							comments[file.Name.Name+"."+spec.Name.Name+"."+id.Name] = strings.TrimSpace(f.Comment.Text())
						}
					}
				}
				return false
			})
		}
	}
	return comments
}
