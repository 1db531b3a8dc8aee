package oci

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"

	"github.com/slipway-cd/slipway/gitsource"
)

// newBlobHash returns a hash that gives the id of a blob of that size, once its content was written to it. It is Git's
// SHA-256 object format: with SHA-1 a publisher could make two files that share an id.
func newBlobHash(size int64) hash.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

func idOf(h hash.Hash) gitsource.ObjectID { return gitsource.ObjectID(hex.EncodeToString(h.Sum(nil))) }

// blobID returns the id of content.
func blobID(content []byte) gitsource.ObjectID {
	h := newBlobHash(int64(len(content)))
	h.Write(content)
	return idOf(h)
}

// seal gives n and all below it the ids of Git trees.
func (n *node) seal() {
	if n.kind != gitsource.Directory {
		return
	}
	names := sortedNames(n.children)
	for _, name := range names {
		n.children[name].seal()
	}
	// Git sorts directories as if their names ended in a slash.
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(n.sortName(a), n.sortName(b)) })
	var content bytes.Buffer
	for _, name := range names {
		child := n.children[name]
		raw, _ := hex.DecodeString(string(child.id)) // made by idOf
		fmt.Fprintf(&content, "%s %s\x00%s", gitMode(child.kind), name, raw)
	}
	h := sha256.New()
	fmt.Fprintf(h, "tree %d\x00", content.Len())
	h.Write(content.Bytes())
	n.id = idOf(h)
}

func (n *node) sortName(name string) string {
	if n.children[name].kind == gitsource.Directory {
		return name + "/"
	}
	return name
}

func gitMode(kind gitsource.EntryKind) string {
	switch kind {
	case gitsource.Directory:
		return "40000"
	case gitsource.Executable:
		return "100755"
	case gitsource.Symlink:
		return "120000"
	default:
		return "100644"
	}
}

func sortedNames(children map[string]*node) []string { return slices.Sorted(maps.Keys(children)) }
