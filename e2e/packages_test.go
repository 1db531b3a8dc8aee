package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unit is what the rules look at: one package, without its tests.
type unit struct {
	name    string // path below the module
	imports []string
	doc     bool
	inits   []string // positions of init functions
	clocks  []string // uses of the clock, with positions
}

// load reads the packages of the module; overlay replaces or adds files, by path below the root.
func load(t *testing.T, overlay map[string]string) []unit {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"list", "-e", "-json=ImportPath,Dir,Imports,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles"}
	content := map[string]string{} // by absolute path
	if len(overlay) > 0 {
		dir, replace := t.TempDir(), map[string]string{}
		for name, text := range overlay {
			content[filepath.Join(root, name)] = text
			replace[filepath.Join(root, name)] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
			if err := os.WriteFile(replace[filepath.Join(root, name)], []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := json.Marshal(map[string]any{"Replace": replace})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", filepath.Join(dir, "overlay.json"))
	}
	cmd := exec.Command("go", append(args, "./...")...)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var units []unit
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir                                                       string
			Imports, GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return units
		} else if err != nil {
			t.Fatal(err)
		}
		u := unit{name: strings.TrimPrefix(p.ImportPath, module+"/"), imports: p.Imports}
		files := slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles)
		if len(p.GoFiles)+len(p.CgoFiles) == 0 {
			files = slices.Concat(files, p.TestGoFiles, p.XTestGoFiles) // a package of tests alone
		}
		for _, f := range files {
			name := filepath.Join(p.Dir, f)
			var source any
			if text, ok := content[name]; ok {
				source = text
			}
			if err := u.read(name, source); err != nil {
				t.Fatal(err)
			}
		}
		units = append(units, u)
	}
}

// read adds what the source of one file says. Files of other platforms count too.
func (u *unit) read(name string, source any) error {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	at := func(n ast.Node) string {
		p := set.Position(n.Pos())
		return path.Join(u.name, filepath.Base(p.Filename)) + ":" + strconv.Itoa(p.Line)
	}
	u.doc = u.doc || f.Doc != nil
	timeName := ""
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		if !slices.Contains(u.imports, p) && !strings.HasSuffix(name, "_test.go") {
			u.imports = append(u.imports, p)
		}
		if p == "time" {
			timeName = "time"
			if i.Name != nil {
				timeName = i.Name.Name
			}
		}
	}
	generated := strings.HasPrefix(filepath.Base(name), "zz_generated")
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil && !generated {
				u.inits = append(u.inits, at(n))
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && slices.Contains(clock, n.Sel.Name) {
				u.clocks = append(u.clocks, "time."+n.Sel.Name+" at "+at(n))
			}
		}
		return true
	})
	return nil
}
