package appset_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/appset"
)

// Whatever stands in Git and in the set: no two Applications have one name, each entry is either one of them or told as a
// failure, and who removes one directory removes the Application of that directory and no other.
func FuzzExpand(f *testing.F) {
	f.Add("apps/*/production", "", "{{name}}", "{{path}}", "apps/shop/production apps/bank/production apps/bank/dev", "eu us", 1)
	f.Add("*/*", "*/dev", "x-{{values.1}}", "{{values.2}}", "a/b a/c b/c b/dev", "a", 0)
	f.Add("a*", "", "{{name}}", "{{", "a ab abc", "ab x", 2)
	f.Add("*", "", "{{values.x}}", "{{{{}}", "a A .a", "", 0)
	f.Fuzz(func(t *testing.T, pattern, exclude, name, path, folders, list string, gone int) {
		var files []string
		for folder := range strings.FieldsSeq(folders) {
			if fs.ValidPath(folder) && folder != "." {
				files = append(files, folder+"/kustomization.yaml")
			}
		}
		var entries []v1alpha1.ApplicationSetEntry
		for item := range strings.FieldsSeq(list) {
			entries = append(entries, entry(item, "x", item))
		}
		var excluded []string
		if exclude != "" {
			excluded = []string{exclude}
		}
		expand := func(files []string) ([]appset.Entry, appset.Expansion, error) {
			found, err := appset.Directories(tree(files...), pattern, excluded)
			all := append(found, appset.List(entries)...)
			return found, appset.Expand(template(name, path), all), err
		}
		directories, before, err := expand(files)
		if err != nil {
			return
		}
		if len(before.Applications)+len(before.Failures) != len(directories)+len(entries) {
			t.Fatalf("%d entries came to %+v", len(directories)+len(entries), before)
		}
		names := map[string]string{} // origins
		for _, app := range before.Applications {
			if other, twice := names[app.Name]; twice {
				t.Fatalf("%s and %s have the name %s", other, app.Origin, app.Name)
			}
			names[app.Name] = app.Origin
		}
		if len(directories) < 2 || len(before.Failures) > 0 {
			return
		}
		if gone %= len(directories); gone < 0 {
			gone += len(directories)
		}
		left := directories[gone].Variables["path"]
		_, after, err := expand(slices.DeleteFunc(slices.Clone(files), func(file string) bool { return strings.HasPrefix(file, left+"/") }))
		if err != nil {
			t.Fatal(err)
		}
		var have []appset.Owned
		for name := range names {
			have = append(have, appset.Owned{Name: name, UID: name})
		}
		removal := appset.Remove(appset.In{Set: "set", Want: after, Owned: have})
		if len(removal.Names) != 1 || removal.Held != "" || names[removal.Names[0]] != "directory "+left {
			t.Fatalf("without %s: %+v", left, removal)
		}
	})
}
