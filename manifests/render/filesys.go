package render

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/slipway-cd/slipway/gitsource"
)

// mountPoint is where kustomize sees the repository. It is not the root, so
// that a path with too many ".." is noticed instead of ending at the root.
const mountPoint = "/repository"

func mount(name string) string { return path.Join(mountPoint, name) }

// unmount returns the path in the repository of an absolute path; ok is false outside.
func unmount(absolute string) (name string, ok bool) {
	clean := path.Clean(absolute)
	if clean == mountPoint {
		return ".", true
	}
	return strings.CutPrefix(clean, mountPoint+"/")
}

// kustomizeFiles is the repository as kustomize wants a file system: read only.
type kustomizeFiles struct{ repo *repository }

var errReadOnly = errors.New("the repository is read only while it is rendered")

// inside returns the path in the repository, or notes the refusal.
func (k kustomizeFiles) inside(name string) (string, error) {
	if !path.IsAbs(name) {
		name = mount(name)
	}
	found, ok := unmount(name)
	if !ok {
		return "", k.repo.refused(&Error{Path: path.Clean(name), Cause: errors.New("leaves the repository")})
	}
	return found, nil
}

func (k kustomizeFiles) ReadFile(name string) ([]byte, error) {
	inside, err := k.inside(name)
	if err != nil {
		return nil, err
	}
	content, found, err := k.repo.read(inside)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &fs.PathError{Op: "open", Path: inside, Err: fs.ErrNotExist}
	}
	isKustomization := slices.Contains(kustomizationNames(), path.Base(inside))
	if isKustomization || isManifest(inside) {
		if err := checkAliases(content); err != nil {
			return nil, k.repo.refused(&Error{Path: inside, Cause: err})
		}
	}
	if isKustomization {
		if err := checkKustomization(k.repo, inside, content); err != nil {
			return nil, k.repo.refused(err)
		}
	}
	return content, nil
}

func (k kustomizeFiles) stat(name string) (string, gitsource.EntryKind) {
	inside, err := k.inside(name)
	if err != nil {
		return "", gitsource.Absent
	}
	resolved, kind, err := k.repo.stat(inside)
	if err != nil {
		return "", gitsource.Absent
	}
	return resolved, kind
}

func (k kustomizeFiles) IsDir(name string) bool {
	_, kind := k.stat(name)
	return kind == gitsource.Directory
}

func (k kustomizeFiles) Exists(name string) bool {
	_, kind := k.stat(name)
	return kind != gitsource.Absent
}

func (k kustomizeFiles) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	resolved, kind := k.stat(name)
	switch kind {
	case gitsource.Directory:
		return filesys.ConfirmedDir(mount(resolved)), "", nil
	case gitsource.File:
		return filesys.ConfirmedDir(mount(path.Dir(resolved))), path.Base(resolved), nil
	}
	return "", "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func (k kustomizeFiles) ReadDir(name string) ([]string, error) {
	inside, err := k.inside(name)
	if err != nil {
		return nil, err
	}
	answer, _, err := k.repo.ask(opList, inside)
	if err != nil {
		return nil, err
	}
	if answer.Kind != gitsource.Directory {
		return nil, &fs.PathError{Op: "readdir", Path: inside, Err: fs.ErrNotExist}
	}
	return answer.Names, nil
}

// Opening, globbing and walking are not part of a build; a plugin that tries is told so.

func (kustomizeFiles) Open(string) (filesys.File, error) { return nil, errors.ErrUnsupported }

func (kustomizeFiles) Glob(string) ([]string, error)            { return nil, errors.ErrUnsupported }
func (kustomizeFiles) Walk(string, filepath.WalkFunc) error     { return errors.ErrUnsupported }
func (kustomizeFiles) Create(string) (filesys.File, error)      { return nil, errReadOnly }
func (kustomizeFiles) Mkdir(string) error                       { return errReadOnly }
func (kustomizeFiles) MkdirAll(string) error                    { return errReadOnly }
func (kustomizeFiles) RemoveAll(string) error                   { return errReadOnly }
func (kustomizeFiles) WriteFile(name string, data []byte) error { return errReadOnly }
