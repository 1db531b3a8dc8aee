package appset

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// most is how many entries a set may have: more are a pattern that was meant otherwise.
const most = 1000

// Directories returns an Entry for each directory of tree that matches pattern and none of exclude, in order of their paths.
// A symbolic link is no directory. No match is no error.
func Directories(tree fs.FS, pattern string, exclude []string) ([]Entry, error) {
	for i, p := range append([]string{pattern}, exclude...) {
		if err := checkPattern(p); err != nil {
			field := "pattern"
			if i > 0 {
				field = fmt.Sprintf("exclude[%d]", i-1)
			}
			return nil, fmt.Errorf("spec.directories.%s %q: %w", field, p, err)
		}
	}
	w := walk{tree: tree, elements: strings.Split(pattern, "/"), exclude: exclude}
	if err := w.below(".", nil); err != nil {
		return nil, err
	}
	return w.found, nil
}

func checkPattern(pattern string) error {
	switch {
	case strings.Contains(pattern, "**"):
		return errors.New("** is not known; * matches within one element, so write one for each, as in apps/*/*")
	case pattern == "." || !fs.ValidPath(pattern):
		return errors.New("want a path below the root, without /, ./ or ../ at its beginning and / at its end")
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("%w: a [ needs a ], as in [a-z]", err)
	}
	return nil
}

type walk struct {
	tree     fs.FS
	elements []string // of the pattern
	exclude  []string
	found    []Entry
}

// below looks for what matches the rest of the pattern; taken are the elements of dir.
func (w *walk) below(dir string, taken []string) error {
	entries, err := fs.ReadDir(w.tree, dir)
	if errors.Is(err, fs.ErrNotExist) && dir == "." {
		return nil // a tree without any file
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		matched, err := matches(w.elements[len(taken)], entry.Name())
		if err != nil {
			return err
		}
		name := path.Join(dir, entry.Name())
		if !matched || !entry.IsDir() || w.excluded(name) {
			continue
		}
		elements := append(taken[:len(taken):len(taken)], entry.Name())
		if len(elements) < len(w.elements) {
			if err := w.below(name, elements); err != nil {
				return err
			}
			continue
		}
		if len(w.found) == most {
			return fmt.Errorf("spec.directories.pattern matches more than %d directories; narrow it down", most)
		}
		w.found = append(w.found, w.entry(elements))
	}
	return nil
}

// matches takes hidden names, as a shell does, only where the pattern has their dot.
func matches(pattern, name string) (bool, error) {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") {
		return false, nil
	}
	return path.Match(pattern, name)
}

// excluded needs to be asked from the top down only: what is below an excluded directory is never looked at.
func (w *walk) excluded(name string) bool {
	for _, pattern := range w.exclude {
		if matched, err := path.Match(pattern, name); matched && err == nil {
			return true
		}
	}
	return false
}

// entry names a directory by what the pattern left open.
func (w *walk) entry(elements []string) Entry {
	full := strings.Join(elements, "/")
	variables := map[string]string{"path": full}
	var open []string
	for i, element := range elements {
		if strings.ContainsAny(w.elements[i], `*?[\`) {
			open = append(open, element)
			variables["values."+strconv.Itoa(len(open))] = element
		}
	}
	variables["name"] = strings.Join(open, "-")
	if len(open) == 0 {
		variables["name"] = elements[len(elements)-1]
	}
	return Entry{Origin: "directory " + full, Variables: variables}
}
