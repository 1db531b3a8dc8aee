// Package edit changes image entries of a kustomization without touching the rest of the file.
//
// It finds positions with a YAML parser and splices bytes itself, so comments,
// indentation, quotes, line ends and markers stay as their author wrote them. The
// result is parsed again: unless exactly the wanted values changed and nothing
// else, the edit is an error and no bytes are returned. What cannot be changed
// safely (aliases, anchors on what would change, values over several lines) is
// refused with its line. It is pure.
package edit

import (
	"fmt"
	"regexp"
	"slices"
)

// maxBytes bounds the file, which people write and review.
const maxBytes = 1 << 20

// Image is one entry of a kustomization's images.
type Image struct {
	Name    string // as the manifests name it, without tag and digest
	NewName string // what it is replaced by; empty keeps what the file says
	// Digest, "sha256:...", takes the place of newTag: kustomize would write
	// NAME:TAG@DIGEST, where the tag is not looked at and soon names another version.
	Digest string
	// NewTag takes the place of digest, for the same reason. At most one of the two is set.
	NewTag string
}

// Reference returns the image as it will stand in the manifests.
func (i Image) Reference() string {
	out := i.Repository()
	if i.NewTag != "" {
		out += ":" + i.NewTag
	}
	if i.Digest != "" {
		out += "@" + i.Digest
	}
	return out
}

// Repository returns NewName, or Name where that is empty.
func (i Image) Repository() string {
	if i.NewName != "" {
		return i.NewName
	}
	return i.Name
}

// ImageChange is one entry that an edit changed. Before is zero but for its Name when the entry was added.
type ImageChange struct {
	Before, After Image
}

// Images sets the entries of kustomization to set and returns the new file with
// what changed, in the order of set. An entry that is missing is added; one that
// says the same already stays byte for byte. Errors name the line.
func Images(kustomization []byte, set []Image) ([]byte, []ImageChange, error) {
	if err := check(set); err != nil {
		return nil, nil, err
	}
	f, err := parse(kustomization)
	if err != nil {
		return nil, nil, err
	}
	var changed []ImageChange
	var added []Image
	for _, want := range set {
		e, found := f.entry(want.Name)
		if !found {
			added = append(added, want)
			changed = append(changed, ImageChange{Before: Image{Name: want.Name}, After: want})
			continue
		}
		before, err := e.image()
		if err != nil {
			return nil, nil, err
		}
		after := merged(before, want)
		if after == before {
			continue
		}
		if err := f.change(e, after); err != nil {
			return nil, nil, err
		}
		changed = append(changed, ImageChange{Before: before, After: after})
	}
	if len(changed) == 0 {
		return slices.Clone(kustomization), nil, nil
	}
	if len(added) > 0 {
		if err := f.add(added); err != nil {
			return nil, nil, err
		}
	}
	out, err := f.spliced()
	if err != nil {
		return nil, nil, err
	}
	if err := verify(f, out, changed); err != nil {
		return nil, nil, err
	}
	return out, changed, nil
}

// Current returns the entries in the order of the file; none if there is no list.
func Current(kustomization []byte) ([]Image, error) {
	f, err := parse(kustomization)
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, e := range f.entries {
		i, err := e.image()
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

// merged is what the entry says afterwards: set fields win, and digest and tag drive each other out.
func merged(before, want Image) Image {
	after := before
	if want.NewName != "" {
		after.NewName = want.NewName
	}
	switch {
	case want.Digest != "":
		after.Digest, after.NewTag = want.Digest, ""
	case want.NewTag != "":
		after.Digest, after.NewTag = "", want.NewTag
	}
	return after
}

// The characters that image references may have; none of them needs escaping in quotes.
var (
	namePattern   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,254}$`)
	tagPattern    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// CheckName says whether name may be that of an image.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("image %q: not the name of an image", name)
	}
	return nil
}

func check(set []Image) error {
	seen := map[string]bool{}
	for _, i := range set {
		if err := CheckName(i.Name); err != nil {
			return err
		}
		switch {
		case seen[i.Name]:
			return fmt.Errorf("image %q: set twice in one edit", i.Name)
		case i.NewName != "" && !namePattern.MatchString(i.NewName):
			return fmt.Errorf("image %q: newName %q is not the name of an image", i.Name, i.NewName)
		case i.Digest != "" && !digestPattern.MatchString(i.Digest):
			return fmt.Errorf("image %q: digest %q: want sha256: and 64 lower-case hex characters", i.Name, i.Digest)
		case i.NewTag != "" && !tagPattern.MatchString(i.NewTag):
			return fmt.Errorf("image %q: newTag %q is not a tag", i.Name, i.NewTag)
		case i.Digest != "" && i.NewTag != "":
			return fmt.Errorf("image %q: has a digest and a tag; set one", i.Name)
		case i.Digest == "" && i.NewTag == "" && i.NewName == "":
			return fmt.Errorf("image %q: nothing to set; give a digest, tag or newName", i.Name)
		}
		seen[i.Name] = true
	}
	return nil
}
