package origin_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"reflect"
	"testing"
	"testing/fstest"

	"github.com/slipway-cd/slipway/cmd/internal/origin"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// tree is a Tree in memory, without links.
type tree struct{ fstest.MapFS }

func treeOf(files map[string]string) tree {
	all := fstest.MapFS{}
	for name, content := range files {
		all[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return tree{all}
}

func (t tree) ReadLink(string) (string, error) { return "", errors.New("no link") }

func (t tree) Entry(name string) (gitsource.Entry, error) {
	content, err := t.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return gitsource.Entry{}, nil
	}
	sum := sha256.Sum256(content)
	return gitsource.Entry{Kind: gitsource.File, ID: gitsource.ObjectID(hex.EncodeToString(sum[:]))}, err
}

const (
	web = "# the shop\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
	two = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\n" + web
)

func TestFind(t *testing.T) {
	deployment := func(name string) manifests.Ref {
		return manifests.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: name}
	}
	files := treeOf(map[string]string{
		"plain/a.yaml":             "kind: [",
		"plain/deep/b.yml":         two,
		"plain/.hidden/c.yaml":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hidden}\n",
		"list/all.yaml":            "apiVersion: v1\nkind: List\nitems:\n- " + "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n",
		"base/web.yaml":            two,
		"base/kustomization.yaml":  "resources: [web.yaml]\nconfigMapGenerator: [{name: settings, literals: [a=b]}]\n",
		"parts/kustomization.yaml": "kind: Component\nresources: [../extra.yaml]\n",
		"extra.yaml":               "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: extra}\n",
		"production/kustomization.yaml": "namePrefix: eu-\nnameSuffix: -1\nresources: [../base]\ncomponents: [../parts]\n" +
			"patches:\n- path: more.yaml\n  target: {kind: Deployment, name: we.*}\n- path: other.yaml\n" +
			"- patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {name: web}\n",
		"production/more.yaml":    "- op: remove\n  path: /spec\n",
		"production/other.yaml":   "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n",
		"loop/kustomization.yaml": "resources: [../loop]\n",
	})
	own, base := "production/kustomization.yaml", "base/kustomization.yaml"
	for name, c := range map[string]struct {
		path string
		ref  manifests.Ref
		want origin.Origin
	}{
		"second document of a file": {"plain", deployment("web"), origin.Origin{File: "plain/deep/b.yml", Line: 6}},
		"item of a List":            {"list", deployment("web"), origin.Origin{File: "list/all.yaml", Line: 1}},
		"behind a base, a prefix and patches": {"production", deployment("eu-web-1"), origin.Origin{
			File: "base/web.yaml", Line: 6, Through: []string{own, base}, Patches: []string{"production/more.yaml", own},
		}},
		"in a component": {"./production/", deployment("eu-extra-1"), origin.Origin{
			File: "extra.yaml", Line: 1, Through: []string{own, "parts/kustomization.yaml"},
		}},
		"generated with a hash": {"production", manifests.Ref{Kind: "ConfigMap", Name: "eu-settings-1-bcdfghkmt2"}, origin.Origin{
			File: base, Through: []string{own, base}, Note: "made by configMapGenerator settings",
		}},
		"another name":     {"production", deployment("eu-web-2"), origin.Origin{Note: "no file below production and its bases was found that holds it"}},
		"another kind":     {"plain", manifests.Ref{Kind: "Deployment", Name: "web"}, origin.Origin{Note: "no file below plain and its bases was found that holds it"}},
		"a hidden file":    {"plain", manifests.Ref{Kind: "ConfigMap", Name: "hidden"}, origin.Origin{Note: "no file below plain and its bases was found that holds it"}},
		"a base of itself": {"loop", deployment("web"), origin.Origin{Note: "no file below loop and its bases was found that holds it"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := origin.Find(files, v1alpha1.ApplicationSpec{Path: c.path}, c.ref)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	got, err := origin.Find(files, v1alpha1.ApplicationSpec{Path: "charts/shop", Helm: &v1alpha1.HelmSpec{ValuesFiles: []string{"eu.yaml"}}}, deployment("web"))
	if err != nil || got.Note != "rendered by the chart charts/shop with eu.yaml" || got.File != "" {
		t.Errorf("of a chart: %+v, %v", got, err)
	}
	if _, err := origin.Find(files, v1alpha1.ApplicationSpec{Path: "nowhere"}, deployment("web")); err == nil {
		t.Error("a folder that is not there gave no error")
	}
}
