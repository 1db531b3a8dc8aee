package sigstore

import (
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"google.golang.org/protobuf/types/known/structpb"
)

// sbom makes an SPDX 2.3 document of what the programs of an image say that they are built from.
func sbom(subject Subject, programs []program, tool string) (*structpb.Struct, error) {
	s := &spdx{packages: map[string]common.ElementID{}, document: &v2_3.Document{
		SPDXVersion:       v2_3.Version,
		DataLicense:       v2_3.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      subject.Image.Reference(),
		DocumentNamespace: "https://slipway.dev/spdx/" + url.PathEscape(subject.Image.Repository) + "/" + subject.Image.Digest + "/" + url.PathEscape(subject.Run.ID),
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: tool}},
			Created:  subject.ended().UTC().Format(time.RFC3339),
		},
	}}
	image := s.add("Image", subject.Image.Repository, subject.Image.Digest, "", "")
	s.relate("DOCUMENT", "DESCRIBES", image)
	if repository, digest, found := strings.Cut(subject.Base, "@"); found {
		s.relate(image, "DESCENDANT_OF", s.add("Image", repository, digest, "", ""))
	}
	for _, p := range programs {
		binary := s.add("Program", p.path+" ("+p.platform+")", p.image.String(), "", "")
		s.relate(image, "CONTAINS", binary)
		s.relate(binary, "DEPENDS_ON", s.module("stdlib", p.info.GoVersion, ""))
		if p.info.Main.Path != "" {
			s.relate(binary, "GENERATED_FROM", s.module(p.info.Main.Path, subject.version(p.info.Main.Version), ""))
		}
		for _, dependency := range p.info.Deps {
			dependency = replaced(dependency)
			s.relate(binary, "DEPENDS_ON", s.module(dependency.Path, dependency.Version, dependency.Sum))
		}
	}
	encoded, err := json.Marshal(s.document)
	if err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	predicate := &structpb.Struct{}
	if err := predicate.UnmarshalJSON(encoded); err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	return predicate, nil
}

func replaced(module *debug.Module) *debug.Module {
	if module.Replace != nil {
		return module.Replace
	}
	return module
}

// spdx collects a document; a package that several programs use stands in it once.
type spdx struct {
	document *v2_3.Document
	packages map[string]common.ElementID
}

// module adds a Go module, named by its package URL.
func (s *spdx) module(path, version, sum string) common.ElementID {
	if sum != "" {
		sum = "go.sum: " + sum
	}
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(url.PathEscape(strings.TrimPrefix(version, "go")), "+", "%2B")
	return s.add("Module", path, version, purl, sum)
}

// add returns the id of a package and adds it when it is new. Ids count, since SPDX allows letters, digits, dots and dashes alone.
func (s *spdx) add(kind, name, version, locator, comment string) common.ElementID {
	key := kind + " " + name + " " + version
	if id, known := s.packages[key]; known {
		return id
	}
	id := common.ElementID(kind + "-" + strconv.Itoa(len(s.packages)))
	s.packages[key] = id
	p := &v2_3.Package{
		PackageName: name, PackageSPDXIdentifier: id, PackageVersion: version, PackageDownloadLocation: "NOASSERTION",
		PackageLicenseConcluded: "NOASSERTION", PackageLicenseDeclared: "NOASSERTION", PackageCopyrightText: "NOASSERTION", PackageComment: comment,
	}
	if locator != "" {
		p.PackageExternalReferences = []*v2_3.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: locator}}
	}
	s.document.Packages = append(s.document.Packages, p)
	return id
}

func (s *spdx) relate(from common.ElementID, how string, to common.ElementID) {
	s.document.Relationships = append(s.document.Relationships, &v2_3.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, Relationship: how, RefB: common.DocElementID{ElementRefID: to},
	})
}
