package sigstore

import (
	"encoding/json"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
)

func TestSBOM(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("0", 64)
	subject := Subject{
		Image: builder.Image{Repository: "registry.example.com/shop", Digest: "sha256:" + zeros},
		Run:   builder.Run{ID: "run-1", Revision: gitsource.Revision{ID: "0123456789abcdef0123456789abcdef01234567"}},
		Base:  "registry.example.com/base@sha256:" + zeros, Finished: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC),
	}
	info := func(arch string) program {
		return program{image: v1.Hash{Algorithm: "sha256", Hex: arch + zeros[len(arch):]}, platform: "linux/" + arch, path: "/app", info: &debug.BuildInfo{
			GoVersion: "go1.26.8", Path: "example.com/shop/cmd", Main: debug.Module{Path: "example.com/shop", Version: "(devel)"},
			Deps: []*debug.Module{
				{Path: "example.com/lib", Version: "v1.2.3", Sum: "h1:abc="},
				{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1-0.20260101000000-abcdef+incompatible"}},
			},
		}}
	}
	predicate, err := sbom(subject, []program{info("amd64"), info("arm64")}, "slipway-test")
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := predicate.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var document v2_3.Document
	if err := json.Unmarshal(encoded, &document); err != nil {
		t.Fatalf("%v in %s", err, encoded)
	}
	names := map[string]string{}
	var packages, relations []string
	for _, p := range document.Packages {
		line := p.PackageName + " " + p.PackageVersion
		names[string(p.PackageSPDXIdentifier)] = p.PackageName
		for _, reference := range p.PackageExternalReferences {
			line += " " + reference.Locator
		}
		packages = append(packages, line)
	}
	names["DOCUMENT"] = "document"
	for _, r := range document.Relationships {
		relations = append(relations, names[string(r.RefA.ElementRefID)]+" "+r.Relationship+" "+names[string(r.RefB.ElementRefID)])
	}
	want := []string{
		"registry.example.com/shop sha256:" + zeros,
		"registry.example.com/base sha256:" + zeros,
		"/app (linux/amd64) sha256:amd64" + zeros[5:],
		"stdlib go1.26.8 pkg:golang/stdlib@1.26.8",
		"example.com/shop 0123456789abcdef0123456789abcdef01234567 pkg:golang/example.com/shop@0123456789abcdef0123456789abcdef01234567",
		"example.com/lib v1.2.3 pkg:golang/example.com/lib@v1.2.3",
		"example.com/fork v1.0.1-0.20260101000000-abcdef+incompatible pkg:golang/example.com/fork@v1.0.1-0.20260101000000-abcdef%2Bincompatible",
		"/app (linux/arm64) sha256:arm64" + zeros[5:],
	}
	if !slices.Equal(packages, want) {
		t.Errorf("packages\n%s\nwant\n%s", strings.Join(packages, "\n"), strings.Join(want, "\n"))
	}
	for _, want := range []string{
		"document DESCRIBES registry.example.com/shop", "registry.example.com/shop DESCENDANT_OF registry.example.com/base",
		"registry.example.com/shop CONTAINS /app (linux/arm64)", "/app (linux/arm64) DEPENDS_ON example.com/lib", "/app (linux/amd64) GENERATED_FROM example.com/shop",
	} {
		if !slices.Contains(relations, want) {
			t.Errorf("no %q in\n%s", want, strings.Join(relations, "\n"))
		}
	}
	if document.SPDXVersion != "SPDX-2.3" || document.CreationInfo.Created != "2026-07-01T12:00:00Z" {
		t.Errorf("%s of %s", document.SPDXVersion, document.CreationInfo.Created)
	}
}

// Sources of provenance that others wrote come in several forms.
func TestSources(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"git+https://git.example.com/acme/shop.git@refs/heads/main": "https://git.example.com/acme/shop",
		"git+https://git.example.com/acme/shop":                     "https://git.example.com/acme/shop",
		"git+https://user@git.example.com/acme/shop":                "https://user@git.example.com/acme/shop",
		"git+ssh://git@git.example.com/acme/shop@refs/tags/v1":      "ssh://git@git.example.com/acme/shop",
		"oci://registry.example.com/base":                           "",
		"git+nonsense@x":                                            "nonsense@x",
	} {
		s := statement{Predicate: json.RawMessage(`{"buildDefinition":{"resolvedDependencies":[{"uri":"` + uri + `"}]}}`)}
		p, err := readProvenance(s)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, from := range p.sources() {
			got += from.url
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", uri, got, want)
		}
	}
}
