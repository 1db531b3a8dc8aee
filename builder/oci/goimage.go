package oci

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
)

// ErrRefused says that what was asked for cannot be built, however often it is tried.
var ErrRefused = errors.New("refused")

// GoImage is what `uses: go-image` asks for.
type GoImage struct {
	Package    string   // folder of the main package below the workspace; default "."
	Repository string   // HOST[:PORT]/PATH
	Base       string   // HOST/PATH@sha256:...; with a tag, what it stands for is recorded; empty for files of Slipway's own alone
	Tags       []string // that are set once all else is pushed
	Platforms  []string // OS/ARCH[/VARIANT], several give an index; default linux on the worker's architecture
	LDFlags    string   // behind those that make the program reproducible
	Labels     []string // NAME=VALUE, of the image's config; org.opencontainers.image.* are set here
	Revision   gitsource.Revision
	Time       time.Time // of the commit; no other time gets into the image
}

// Built is an image with what went into it.
type Built struct {
	Image     builder.Image
	GoVersion string // "go1.26.8"
	Base      string // REPOSITORY@sha256:...; empty for none
	// Materials are source, toolchain, base and modules, as the programs themselves and the registry name them.
	Materials []Material
	// Parameters are the commands that ran in the sandbox.
	Parameters [][]string
	Sent       int // blobs that the registry did not have
}

// Material is one thing that went into an image.
type Material struct {
	URI    string
	Digest string // ALGORITHM:HEX; empty where none is known
}

// BuildGo downloads the modules, with network; builds the program of each platform, without; makes the image and pushes
// it: first the blobs that the registry does not have, then manifests by digest, then the tags. So an image that is
// found is whole.
func (r *Registry) BuildGo(ctx context.Context, image GoImage, workspace string, run Runner) (Built, error) {
	o, err := r.order(image)
	if err != nil {
		return Built{}, err
	}
	root, err := os.OpenRoot(workspace)
	if err != nil {
		return Built{}, fmt.Errorf("image %s: workspace: %w", image.Repository, err)
	}
	defer root.Close()
	scratch, err := os.MkdirTemp(r.scratchDir(), "image-")
	if err != nil {
		return Built{}, fmt.Errorf("image %s: %w", image.Repository, err)
	}
	defer func() { _ = removeAll(scratch) }()

	base, err := r.base(ctx, image.Base, o.platforms) // before the long work, since it may be wrong
	if err != nil {
		return Built{}, err
	}
	compiled, err := r.compile(ctx, o, root, run)
	if err != nil {
		return Built{}, fmt.Errorf("image %s: %w", image.Repository, err)
	}
	defer compiled.clean()
	var images []v1.Image
	for i, p := range compiled.programs {
		made, err := r.assemble(o, p, base.images[i], scratch)
		if err != nil {
			return Built{}, fmt.Errorf("image %s: %s: %w", image.Repository, p.platform, err)
		}
		images = append(images, made)
	}
	digest, sent, err := r.push(ctx, o, images)
	if err != nil {
		return Built{}, err
	}
	return Built{
		Image:     builder.Image{Repository: image.Repository, Digest: digest, Revision: image.Revision},
		GoVersion: compiled.programs[0].info.GoVersion, Base: base.reference,
		Materials: materials(image, base.reference, compiled.programs), Parameters: compiled.commands, Sent: sent,
	}, nil
}

// order is a GoImage that was checked.
type order struct {
	GoImage
	dir        string // of the package: clean, relative to the workspace
	repository name.Repository
	platforms  []v1.Platform
	tags       []name.Tag
	labels     map[string]string
}

// what a GoImage may ask for; the words are those of the Go toolchain.
var variants = map[string]string{ //nolint:gochecknoglobals // a closed list
	"amd64": "v1 v2 v3 v4", "arm": "v5 v6 v7", "arm64": "v8 v9", "386": "", "ppc64le": "", "riscv64": "", "s390x": "", "loong64": "", "mips64le": "",
}

func (r *Registry) order(image GoImage) (order, error) {
	refuse := func(format string, args ...any) (order, error) {
		return order{}, fmt.Errorf("image %s: %w: %s", image.Repository, ErrRefused, fmt.Sprintf(format, args...))
	}
	o := order{GoImage: image, dir: filepath.Clean(valueOr(image.Package, "."))}
	if !filepath.IsLocal(o.dir) || strings.ContainsAny(o.dir, "\x00\n") || strings.Contains(image.Package, "...") {
		return refuse("package %q is not a folder of the repository (want ./cmd/NAME)", image.Package)
	}
	repository, err := name.NewRepository(image.Repository, append(r.naming(image.Repository), name.StrictValidation)...)
	if err != nil {
		return refuse("%v (want HOST/PATH, without tag and digest)", err)
	}
	o.repository = repository
	for _, t := range image.Tags {
		tag, err := name.NewTag(image.Repository+":"+t, append(r.naming(image.Repository), name.StrictValidation)...)
		if err != nil || tag.TagStr() != t {
			return refuse("tag %q is not one", t)
		}
		o.tags = append(o.tags, tag)
	}
	if image.Time.IsZero() {
		return refuse("time of the commit is not known")
	}
	if strings.ContainsAny(image.LDFlags, "\x00\n") {
		return refuse("ldflags hold a line break")
	}
	o.labels = map[string]string{}
	for _, label := range image.Labels {
		key, value, found := strings.Cut(label, "=")
		if !found || key == "" || strings.HasPrefix(key, "org.opencontainers.image.") {
			return refuse("label %q (want NAME=VALUE, and none of org.opencontainers.image.*)", label)
		}
		o.labels[key] = value
	}
	for _, text := range image.Platforms {
		p, err := platform(text)
		if err != nil {
			return refuse("%v", err)
		}
		if slices.ContainsFunc(o.platforms, p.Equals) {
			return refuse("platform %s is there twice", text)
		}
		o.platforms = append(o.platforms, p)
	}
	if len(o.platforms) == 0 {
		o.platforms = []v1.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	return o, nil
}

func platform(text string) (v1.Platform, error) {
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "linux" {
		return v1.Platform{}, fmt.Errorf("platform %q (want linux/ARCH or linux/ARCH/VARIANT)", text)
	}
	known, ok := variants[parts[1]]
	if !ok {
		return v1.Platform{}, fmt.Errorf("platform %q: unknown architecture %q", text, parts[1])
	}
	p := v1.Platform{OS: "linux", Architecture: parts[1]}
	if len(parts) == 3 {
		if !slices.Contains(strings.Fields(known), parts[2]) {
			return v1.Platform{}, fmt.Errorf("platform %q: unknown variant %q (%s has: %s)", text, parts[2], parts[1], valueOr(known, "none"))
		}
		p.Variant = parts[2]
	}
	return p, nil
}

// programName is what the file in the image is called: as the package, or as its module if it is at the module's root.
func programName(dir, module, modulePath string) string {
	base := filepath.Base(dir)
	if dir == module {
		parts := strings.Split(modulePath, "/")
		base = parts[len(parts)-1]
		if len(parts) > 1 && regexp.MustCompile(`^v[0-9]+$`).MatchString(base) {
			base = parts[len(parts)-2]
		}
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`).MatchString(base) {
		return "program"
	}
	return base
}

func materials(image GoImage, base string, programs []program) []Material {
	all := []Material{}
	if image.Revision.ID != "" {
		algorithm := "gitCommit"
		all = append(all, Material{URI: "git+" + image.Revision.URL + "@" + image.Revision.Ref, Digest: algorithm + ":" + string(image.Revision.ID)})
	}
	if repository, digest, found := strings.Cut(base, "@"); found {
		all = append(all, Material{URI: "oci://" + repository, Digest: digest})
	}
	for _, p := range programs {
		all = append(all, Material{URI: "pkg:golang/toolchain@" + strings.TrimPrefix(p.info.GoVersion, "go")})
		all = append(all, modules(p.info)...)
	}
	slices.SortStableFunc(all[min(len(all), 1):], func(a, b Material) int { return strings.Compare(a.URI, b.URI) })
	return slices.Compact(all)
}

func modules(info *buildinfo.BuildInfo) (all []Material) {
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, Material{URI: "pkg:golang/" + m.Path + "@" + m.Version, Digest: directoryHash(m.Sum)})
	}
	return all
}
