package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// Bounds of a workspace as it is checked out.
const (
	checkoutEntries = 500_000
	checkoutBytes   = 8 << 30
)

// checkout writes the files of a Snapshot into an empty folder. It never writes or links outside of it, whatever the tree
// says, and follows no link while it writes.
type checkout struct {
	tree      gitsource.Tree
	say       func(text string)
	failpoint func() // called when the first file is there; may be nil

	root    *os.Root
	entries int
	files   int // entries that are no folders
	bytes   int64
}

func (c *checkout) write(ctx context.Context, dir string) (err error) {
	if c.root, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	defer func() { err = errors.Join(err, c.root.Close()) }()
	return c.folder(ctx, ".")
}

// folder reads directories itself: fs.WalkDir would ask for each entry's kind through the links.
func (c *checkout) folder(ctx context.Context, dir string) error {
	entries, err := c.tree.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		name := path.Join(dir, e.Name())
		if err := c.entry(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkout) entry(ctx context.Context, name string) error {
	if !fs.ValidPath(name) || strings.EqualFold(path.Base(name), ".git") || !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%q: a name that is not checked out", name)
	}
	e, err := c.tree.Entry(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if c.entries++; c.entries > checkoutEntries {
		return fmt.Errorf("more than %d files and folders", checkoutEntries)
	}
	if e.Kind != gitsource.Directory {
		c.files++
	}
	switch e.Kind {
	case gitsource.Directory:
		if err := c.root.Mkdir(name, 0o755); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return c.folder(ctx, name)
	case gitsource.File:
		return c.file(name, e, 0o644)
	case gitsource.Executable:
		return c.file(name, e, 0o755)
	case gitsource.Symlink:
		return c.link(name)
	case gitsource.Submodule:
		c.say(name + " is a submodule and stays empty: it is not fetched")
		return c.root.Mkdir(name, 0o755)
	}
	return fmt.Errorf("%s: neither file, folder nor link", name)
}

func (c *checkout) file(name string, e gitsource.Entry, mode fs.FileMode) error {
	if c.bytes += e.Size; c.bytes > checkoutBytes {
		return fmt.Errorf("%s: more than %d bytes in all", name, int64(checkoutBytes))
	}
	content, err := c.tree.ReadFile(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f, err := c.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if c.failpoint != nil {
		c.failpoint()
		c.failpoint = nil
	}
	return nil
}

// link makes a symbolic link, if it stays inside of the tree by its text alone: what it leads through may be a link too, and
// is checked as one.
func (c *checkout) link(name string) error {
	target, err := c.tree.ReadLink(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if path.IsAbs(target) || !filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), target))) {
		return fmt.Errorf("%s: a link to %q, which leaves the repository", name, target)
	}
	if err := c.root.Symlink(target, name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
