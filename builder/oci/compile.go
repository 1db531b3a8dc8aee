package oci

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// output is the folder below the workspace that programs are written to. It lies in .git, because go:embed takes files
// of any other name into a program.
const output = ".git/slipway-image"

const (
	maxProgram = 1 << 30  // bytes
	maxGoMod   = 16 << 20 // bytes of go.mod or go.sum
)

// program is one that was compiled.
type program struct {
	platform v1.Platform
	name     string
	file     *os.File
	size     int64
	info     *buildinfo.BuildInfo
}

// compiled is what the toolchain made of the workspace.
type compiled struct {
	root     *os.Root
	programs []program
	commands [][]string
	ownGit   bool // .git was made for output
}

// clean removes what was made in the workspace.
func (c *compiled) clean() {
	for _, p := range c.programs {
		_ = p.file.Close()
	}
	_ = c.root.RemoveAll(output)
	if c.ownGit {
		_ = c.root.Remove(".git") // fails if something else is there meanwhile
	}
}

// compile runs the toolchain in the sandbox and opens what came out.
func (r *Registry) compile(ctx context.Context, o order, root *os.Root, run Runner) (_ *compiled, err error) {
	m, err := findModule(root, o.dir)
	if err != nil {
		return nil, err
	}
	c := &compiled{root: root}
	defer func() {
		if err != nil {
			c.clean()
		}
	}()
	if err := c.makeOutput(); err != nil {
		return nil, err
	}
	if m.requires && !m.vendored {
		if err := r.download(ctx, c, m, run); err != nil {
			return nil, err
		}
	}
	for i, p := range o.platforms {
		name := programName(o.dir, m.dir, m.path)
		target := path.Join(output, strconv.Itoa(i), name)
		command := r.buildCommand(o, m, target)
		c.commands = append(c.commands, command)
		if err := run.Run(ctx, command, r.environment(p), false); err != nil {
			return nil, fmt.Errorf("go build for %s: %w", p, err)
		}
		made, err := open(root, target, p)
		if err != nil {
			return nil, fmt.Errorf("program for %s: %w", p, err)
		}
		made.name = name
		c.programs = append(c.programs, made)
	}
	return c, nil
}

func (c *compiled) makeOutput() error {
	switch info, err := c.root.Lstat(".git"); {
	case errors.Is(err, fs.ErrNotExist):
		if err := c.root.Mkdir(".git", 0o777); err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
		c.ownGit = true
	case err != nil:
		return fmt.Errorf("workspace: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%w: .git in the workspace is not a folder", ErrRefused)
	}
	if err := c.root.RemoveAll(output); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	if err := c.root.Mkdir(output, 0o777); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	// The sandbox may run as somebody else.
	return c.root.Chmod(output, 0o777)
}

// download fills the module cache. It executes nothing of the repository: modules come from the proxy alone, are held
// against go.sum and the checksum database, and version control is off. go.mod and go.sum stay as they were committed.
func (r *Registry) download(ctx context.Context, c *compiled, m module, run Runner) error {
	command := []string{"go", "-C", path.Join(Workspace, m.dir), "mod", "download"}
	c.commands = append(c.commands, command)
	before := map[string][]byte{}
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := readFile(c.root, filepath.Join(m.dir, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		before[file] = content
	}
	err := run.Run(ctx, command, r.environment(v1.Platform{}), true)
	for file, was := range before {
		name := filepath.Join(m.dir, file)
		if now, _ := readFile(c.root, name); bytes.Equal(now, was) {
			continue
		}
		if restored := restore(c.root, name, was); restored != nil && err == nil {
			err = restored
		}
	}
	if err != nil {
		return fmt.Errorf("go mod download: %w", err)
	}
	return nil
}

func restore(root *os.Root, name string, content []byte) error {
	if err := root.RemoveAll(name); err != nil || content == nil {
		return err
	}
	return root.WriteFile(name, content, 0o644)
}

func (r *Registry) buildCommand(o order, m module, target string) []string {
	mod := "readonly"
	if m.vendored {
		mod = "vendor"
	}
	ldflags := "-s -w -buildid="
	if o.LDFlags != "" {
		ldflags += " " + o.LDFlags
	}
	command := []string{"go", "-C", path.Join(Workspace, m.dir), "build", "-trimpath", "-buildvcs=false", "-mod=" + mod, "-ldflags=" + ldflags}
	if r.toolchain.Processes > 0 {
		command = append(command, "-p="+strconv.Itoa(r.toolchain.Processes))
	}
	below, err := filepath.Rel(m.dir, o.dir)
	if err != nil { // both are clean and local
		below = o.dir
	}
	return append(command, "-o="+path.Join(Workspace, target), "./"+filepath.ToSlash(below))
}

// environment is all that the toolchain gets. Whatever decides on the program is named, so that no default of a machine
// or of a toolchain's own build gets in.
func (r *Registry) environment(p v1.Platform) []string {
	env := []string{
		"PATH=" + r.toolchain.Path, "HOME=/tmp", "LANG=C.UTF-8", "TZ=UTC",
		"GOMODCACHE=" + ModuleCache, "GOCACHE=" + BuildCache, "GOENV=off", "GOWORK=off", "GOTOOLCHAIN=local", "GOTELEMETRY=off",
		"GOFLAGS=-modcacherw", "GO111MODULE=on", "GOEXPERIMENT=", "GODEBUG=", "GOFIPS140=off",
		"GOPROXY=" + r.toolchain.Proxy, "GOSUMDB=" + r.toolchain.SumDB, "GONOSUMDB=" + r.toolchain.NoSumDB, "GONOPROXY=none", "GOPRIVATE=", "GOVCS=*:off", "GOAUTH=off",
		"CGO_ENABLED=0",
	}
	if p.OS == "" {
		return env
	}
	env = append(env, "GOOS="+p.OS, "GOARCH="+p.Architecture)
	switch p.Architecture {
	case "amd64":
		env = append(env, "GOAMD64="+valueOr(p.Variant, "v1"))
	case "arm64":
		env = append(env, "GOARM64="+valueOr(p.Variant, "v8")+".0")
	case "arm":
		env = append(env, "GOARM="+strings.TrimPrefix(valueOr(p.Variant, "v7"), "v"))
	case "386":
		env = append(env, "GO386=sse2")
	}
	return env
}

// open opens what the toolchain wrote. Steps of the repository have written to the workspace, so it may be anything.
func open(root *os.Root, target string, p v1.Platform) (program, error) {
	info, err := root.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return program{}, fmt.Errorf("%w: go build wrote none (is the package a main package?)", ErrRefused)
	}
	if err != nil {
		return program{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxProgram {
		return program{}, fmt.Errorf("%w: not a regular file of at most %d bytes", ErrRefused, maxProgram)
	}
	f, err := root.Open(target)
	if err != nil {
		return program{}, err
	}
	built, err := buildinfo.Read(f)
	if err != nil {
		_ = f.Close()
		return program{}, fmt.Errorf("%w: no Go program (is the package a main package?): %w", ErrRefused, err)
	}
	for _, s := range built.Settings {
		if s.Key == "GOOS" && s.Value != p.OS || s.Key == "GOARCH" && s.Value != p.Architecture || s.Key == "CGO_ENABLED" && s.Value != "0" {
			_ = f.Close()
			return program{}, fmt.Errorf("%w: built with %s=%s", ErrRefused, s.Key, s.Value)
		}
	}
	return program{platform: p, file: f, size: info.Size(), info: built}, nil
}

// module is the one that a package belongs to.
type module struct {
	dir      string // relative to the workspace
	path     string
	requires bool // other modules
	vendored bool
}

// findModule looks upward from the package, as go does, but not out of the workspace.
func findModule(root *os.Root, dir string) (module, error) {
	if info, err := root.Stat(dir); err != nil || !info.IsDir() {
		return module{}, fmt.Errorf("%w: package %q is not a folder of the repository", ErrRefused, dir)
	}
	for at := dir; ; at = filepath.Dir(at) {
		content, err := readFile(root, filepath.Join(at, "go.mod"))
		if errors.Is(err, fs.ErrNotExist) {
			if at == "." {
				return module{}, fmt.Errorf("%w: no go.mod in %q or above it", ErrRefused, dir)
			}
			continue
		}
		if err != nil {
			return module{}, err
		}
		m := readModule(content)
		m.dir = at
		if info, err := root.Lstat(filepath.Join(at, "vendor", "modules.txt")); err == nil && info.Mode().IsRegular() {
			m.vendored = true
		}
		return m, nil
	}
}

// readModule finds the two things that are needed of go.mod; go itself judges the rest.
func readModule(content []byte) (m module) {
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "//")
		words := strings.Fields(strings.ReplaceAll(line, "(", " ("))
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "module":
			m.path = strings.Trim(words[1], "\"`")
		case "require":
			m.requires = true
		}
	}
	return m
}

// readFile reads a regular file of moderate size; nil content comes with an error only.
func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxGoMod {
		return nil, fmt.Errorf("%w: %s is not a regular file of at most %d bytes", ErrRefused, name, maxGoMod)
	}
	content, err := root.ReadFile(name)
	if content == nil && err == nil {
		content = []byte{}
	}
	return content, err
}

// directoryHash turns the hash of go.sum, "h1:BASE64", into the form of digests; empty if there is none.
// Its algorithm is called dirHash in https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md.
func directoryHash(sum string) string {
	encoded, found := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil {
		return ""
	}
	return "dirHash:" + hex.EncodeToString(raw)
}
