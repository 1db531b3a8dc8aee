package install_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/manifests/install"
)

// metric is one as the source says it.
type metric struct{ kind, help, folder string }

// ownMetrics reads every metric of the module from its source: calls and Opts that name one.
func ownMetrics(t *testing.T) map[string]metric {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]metric{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && (path != root && strings.HasPrefix(name, ".") || name == "testdata" || name == "e2e" || name == "bin") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if name, m := declared(node); name != "" {
				m.folder = filepath.ToSlash(folder)
				found[name] = m
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// declared reads prometheus.CounterOpts{Name: "slipway_...", Help: "..."}, and the calls counter("slipway_...", "...").
func declared(node ast.Node) (string, metric) {
	switch n := node.(type) {
	case *ast.CompositeLit:
		selector, is := n.Type.(*ast.SelectorExpr)
		if !is || !strings.HasSuffix(selector.Sel.Name, "Opts") {
			return "", metric{}
		}
		m, name := metric{kind: strings.ToLower(strings.TrimSuffix(selector.Sel.Name, "Opts"))}, ""
		for _, element := range n.Elts {
			pair, is := element.(*ast.KeyValueExpr)
			if !is {
				continue
			}
			switch key, _ := pair.Key.(*ast.Ident); {
			case key == nil:
			case key.Name == "Name":
				name = text(pair.Value)
			case key.Name == "Help":
				m.help = text(pair.Value)
			}
		}
		if strings.HasPrefix(name, "slipway_") {
			return name, m
		}
	case *ast.CallExpr:
		called, is := n.Fun.(*ast.Ident)
		if !is || len(n.Args) < 2 {
			return "", metric{}
		}
		if name := text(n.Args[0]); strings.HasPrefix(name, "slipway_") {
			return name, metric{kind: called.Name, help: text(n.Args[1])}
		}
	}
	return "", metric{}
}

func text(e ast.Expr) string {
	literal, is := e.(*ast.BasicLit)
	if !is || literal.Kind != token.STRING {
		return ""
	}
	value, err := strconv.Unquote(literal.Value)
	if err != nil {
		return ""
	}
	return value
}

// TestMetricsAreDocumented: the table has every metric of the module, as the source words it.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	own := ownMetrics(t)
	var table strings.Builder
	table.WriteString("# Metrics\n\nOf agent, server and workers, at /metrics. Written by `go test ./manifests/install -update`.\n\n" +
		"| metric | type | meaning | from |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(own)) {
		m := own[name]
		if m.help == "" || !slices.Contains([]string{"counter", "gauge", "histogram"}, m.kind) {
			t.Errorf("%s (%s): type %q, help %q", name, m.folder, m.kind, m.help)
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | `%s` |\n", name, m.kind, m.help, m.folder)
	}
	table.WriteString("\nBeside these an agent shows those of its libraries: `controller_runtime_*`, `workqueue_*`, `rest_client_*`,\n" +
		"`leader_election_master_status` (1 at the agent that leads), `gotk_reconcile_condition` (1 for the status that a condition\n" +
		"of an object has), `gotk_reconcile_duration_seconds`, and `go_*` and `process_*` of the runtime.\n")
	const file = "dashboards/METRICS.md"
	if *update {
		if err := os.WriteFile(file, []byte(table.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if table.String() != string(want) {
		t.Errorf("%s (go test ./manifests/install -update, and read the diff):\n%s", file, table.String())
	}
	if len(own) < 15 {
		t.Errorf("only %d metrics found: they are written in a way that this test does not read", len(own))
	}
}

func TestDashboards(t *testing.T) {
	t.Parallel()
	objects, err := install.Dashboards("delivery")
	if err != nil || len(objects) != 3 || objects[0].GetKind() != "ConfigMap" || objects[1].GetKind() != "PrometheusRule" ||
		objects[2].GetKind() != "PodMonitor" || objects[2].GetNamespace() != "delivery" {
		t.Fatalf("%v, %v", objects, err)
	}
	data, _ := objects[0].Object["data"].(map[string]any)
	content, _ := data["slipway-agent.json"].(string)
	var board struct {
		Panels []struct {
			ID      int
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(content), &board); err != nil || len(board.Panels) == 0 {
		t.Fatalf("the dashboard: %v", err)
	}
	ids := map[int]bool{}
	for _, panel := range board.Panels {
		if ids[panel.ID] || len(panel.Targets) == 0 {
			t.Errorf("panel %d is there twice, or shows nothing", panel.ID)
		}
		ids[panel.ID] = true
	}
	if _, err := install.Dashboards("a.b"); err == nil {
		t.Error("a namespace that is none")
	}
}
