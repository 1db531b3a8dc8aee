package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/slipway-cd/slipway/e2e/programs"
)

// What a real node needs beside the role binary.
const (
	containerdVersion = "v2.4.2"
	cniVersion        = "v1.9.1"
	pauseImage        = "testbed.local/pause:1"
)

// debianPackages are unpacked where runc or nft is missing: the programs and the libraries they load.
var debianPackages = []string{
	"runc", "libseccomp2",
	"nftables", "libnftables1", "libnftnl11", "libmnl0", "libjansson4", "libedit2", "libbsd0", "libmd0", "libtinfo6", "libxtables12", "libgmp10",
}

// nodeTools are the paths of what a real node needs.
type nodeTools struct {
	containerd string // folder with containerd, its shim and ctr
	cni        string // folder of the plugins
	programs   string // folder with runc and nft
	pause      string // archive of the pause image
}

// node prepares everything that a real node needs.
func (c cache) node(ctx context.Context) (nodeTools, error) {
	var t nodeTools
	var err error
	if t.containerd, err = c.goInstall(ctx, "containerd", containerdVersion, "containerd, one to two minutes the first time",
		"github.com/containerd/containerd/v2/cmd/containerd",
		"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		"github.com/containerd/containerd/v2/cmd/ctr"); err != nil {
		return nodeTools{}, err
	}
	if t.cni, err = c.goInstall(ctx, "cni", cniVersion, "network plugins",
		"github.com/containernetworking/plugins/plugins/main/bridge",
		"github.com/containernetworking/plugins/plugins/main/loopback",
		"github.com/containernetworking/plugins/plugins/ipam/host-local"); err != nil {
		return nodeTools{}, err
	}
	if t.programs, err = c.programs(ctx); err != nil {
		return nodeTools{}, err
	}
	for _, program := range []string{"runc", "nft"} {
		if out, err := exec.CommandContext(ctx, filepath.Join(t.programs, program), "--version").CombinedOutput(); err != nil {
			return nodeTools{}, fmt.Errorf("%s does not run here: %w: %s (install the packages runc and nftables)", program, err, out)
		}
	}
	t.pause, err = c.pause(ctx)
	return t, err
}

// goInstall builds commands of one module version into a cache entry.
func (c cache) goInstall(ctx context.Context, name, version, what string, packages ...string) (string, error) {
	return c.entry(ctx, name, version+"-"+goVersion()+"-"+runtime.GOARCH, func(ctx context.Context, dir string) error {
		args := []string{"install", "-trimpath", "-ldflags=-s -w", "-tags=no_btrfs no_zfs no_devmapper no_aufs"}
		for _, p := range packages {
			args = append(args, p+"@"+version)
		}
		return c.goCommand(ctx, what+" ("+version+")", dir, []string{"GOBIN=" + dir}, args...)
	})
}

// programs returns a folder with runc and nft: links to the machine's own, or wrappers of unpacked Debian packages.
func (c cache) programs(ctx context.Context) (string, error) {
	runc, runcErr := exec.LookPath("runc")
	nft, nftErr := exec.LookPath("nft")
	if runcErr == nil && nftErr == nil {
		return c.entry(ctx, "programs-host", "1", func(_ context.Context, dir string) error {
			return errors.Join(os.Symlink(runc, filepath.Join(dir, "runc")), os.Symlink(nft, filepath.Join(dir, "nft")))
		})
	}
	return c.entry(ctx, "programs-debian", "1", func(ctx context.Context, dir string) error {
		if err := c.unpackDebian(ctx, dir); err != nil {
			return fmt.Errorf("runc or nft is not installed and unpacking Debian's failed (install the packages runc and nftables): %w", err)
		}
		final := strings.TrimSuffix(dir, ".part")
		libraries, err := libraryDirs(dir, final)
		if err != nil {
			return err
		}
		for _, program := range []string{"runc", "nft"} {
			wrapper := fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH='%s' exec '%s/usr/sbin/%s' \"$@\"\n", libraries, final, program)
			if err := os.WriteFile(filepath.Join(dir, program), []byte(wrapper), 0o755); err != nil {
				return err
			}
		}
		return nil
	})
}

// libraryDirs lists the library folders below dir as a search path, as if dir were final.
func libraryDirs(dir, final string) (string, error) {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		for _, f := range found {
			dirs = append(dirs, final+strings.TrimPrefix(f, dir))
		}
	}
	return strings.Join(dirs, ":"), nil
}

// unpackDebian downloads debianPackages with apt and unpacks them into dir. It needs no root: where the machine's lists
// do not know the packages, it fetches lists into a folder of its own.
func (c cache) unpackDebian(ctx context.Context, dir string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return errors.New("no apt-get: this is not Debian or Ubuntu")
	}
	downloads := filepath.Join(dir, "downloads")
	state := filepath.Join(dir, "apt")
	for _, d := range []string{downloads, filepath.Join(state, "lists", "partial"), filepath.Join(state, "cache", "archives", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	private := []string{
		"-o", "Dir::State=" + state, "-o", "Dir::State::Lists=" + filepath.Join(state, "lists"),
		"-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Dir::Cache=" + filepath.Join(state, "cache"),
		"-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1",
	}
	download := func(options ...string) error {
		cmd := exec.CommandContext(ctx, apt, append(append(options, "download"), debianPackages...)...)
		cmd.Dir = downloads
		return programs.Run(ctx, "downloading Debian's runc and nftables into the cache", cmd, c.log)
	}
	if err := download("-o", "APT::Sandbox::User="); err != nil {
		update := exec.CommandContext(ctx, apt, append(private, "update")...)
		if err := programs.Run(ctx, "fetching Debian's package lists into the cache", update, c.log); err != nil {
			return err
		}
		if err := download(private...); err != nil {
			return err
		}
	}
	archives, err := filepath.Glob(filepath.Join(downloads, "*.deb"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", archive, dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(archive), err, out)
		}
	}
	return errors.Join(os.RemoveAll(downloads), os.RemoveAll(state))
}

// pause builds the image that holds a pod's namespaces.
func (c cache) pause(ctx context.Context) (string, error) {
	roles, err := rolesSource()
	if err != nil {
		return "", err
	}
	dir, err := c.entry(ctx, "pause", "1-"+runtime.GOARCH, func(ctx context.Context, dir string) error {
		program := filepath.Join(dir, "pause")
		source := filepath.Join(filepath.Dir(roles), "pause")
		if err := c.goCommand(ctx, "the pause image", source, nil, "build", "-trimpath", "-ldflags=-s -w", "-o", program, "."); err != nil {
			return err
		}
		img, err := programImage(program, ImageSpec{})
		if err != nil {
			return err
		}
		ref, err := name.NewTag(pauseImage)
		if err != nil {
			return err
		}
		return tarball.WriteToFile(filepath.Join(dir, "pause.tar"), ref, img)
	})
	return filepath.Join(dir, "pause.tar"), err
}
