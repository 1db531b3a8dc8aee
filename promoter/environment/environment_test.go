package environment_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/promoter/environment"
)

var update = flag.Bool("update", false, "write the golden files")

const delivery = `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
  - name: dev
    path: apps/{app}/dev
    promote: {by: commit}
  - name: production-eu
    after: [dev]
    path: apps/{app}/production-eu
    promote: {by: pullRequest}
`

func TestParse(t *testing.T) {
	d, err := environment.Parse([]byte(delivery))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.Find("dev")
	if err != nil || dev.By != environment.Commit || dev.AppPath("shop") != "apps/shop/dev" {
		t.Errorf("dev: %+v, %v", dev, err)
	}
	production, err := d.Find("production-eu")
	if err != nil || production.By != environment.PullRequest || len(production.After) != 1 || production.After[0] != "dev" {
		t.Errorf("production-eu: %+v, %v", production, err)
	}
	if _, err := d.Find("prod"); err == nil || !strings.Contains(err.Error(), "it has dev, production-eu") {
		t.Errorf("prod: %v", err)
	}
}

// TestRefused compares the messages for each testdata/*.yaml with the golden file beside it.
func TestRefused(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, in := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(in), ".yaml"), func(t *testing.T) {
			content, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			_, err = environment.Parse(content)
			if err == nil {
				t.Fatal("accepted")
			}
			var fault *environment.Error
			if !errors.As(err, &fault) || fault.Line < 1 {
				t.Errorf("no *Error with a line in %v", err)
			}
			golden := strings.TrimSuffix(in, ".yaml") + ".golden"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func TestAppOf(t *testing.T) {
	for _, c := range []struct{ pattern, path, app string }{
		{"apps/{app}/dev", "apps/shop/dev/kustomization.yaml", "shop"},
		{"apps/{app}/dev", "apps/shop/dev", ""},
		{"apps/{app}/dev", "apps/shop/production/x", ""},
		{"apps/{app}/dev", "apps/Shop/dev/x", ""},
		{"{app}", "shop/base/x.yaml", "shop"},
		{"{app}-dev/{app}", "shop-dev/shop/x", "shop"},
		{"{app}-dev/{app}", "shop-dev/cart/x", ""},
		{"apps/{app}/dev", "apps/", ""},
	} {
		app, found := environment.Environment{Path: c.pattern}.AppOf(c.path)
		if app != c.app || found != (c.app != "") {
			t.Errorf("%s in %s: %q, %v", c.path, c.pattern, app, found)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"shop": true, "a": true, "production-eu": true, "": false, "-a": false, "a-": false, "../x": false, "a/b": false,
		"A": false, "a.lock": false, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false, "a\n": false,
	} {
		if err := environment.CheckName("app", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(delivery))
	inputs, _ := filepath.Glob("testdata/*.yaml")
	for _, in := range inputs {
		content, _ := os.ReadFile(in)
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := environment.Parse(content)
		if err != nil {
			return
		}
		for _, e := range d.Environments {
			if err := environment.CheckName("environment", e.Name); err != nil {
				t.Error(err)
			}
			path := e.AppPath("shop")
			if !filepath.IsLocal(path) || strings.Contains(path, "{") {
				t.Errorf("path %q", path)
			}
		}
	})
}
