package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/cmd/internal/wire/local"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/install"
)

type upFlags struct {
	cluster, data, registry, metrics  string
	port                              int
	testBed, verbose, allowUnisolated bool
}

func upCommand(g *globals) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything for one cluster in this process",
		Long: `Run everything for one cluster in this process, until Ctrl-C: a Git host with an
environment repo, a registry, the server, and the agent.

It installs the CRDs, the agent's rights and a GitSource into the cluster of the
kubeconfig, whose user must be an administrator; the agent then acts as the user
` + local.AgentUser + `, with its rights and no others. An empty environment repo gets the
files of 'slipway init', and the agent's key. What else is pushed to the Git host is
built, signed and promoted as its .pipeline.yml says; a repository is made by the
first push to it. Started again over the same --data
it goes on where it was, also after kill -9.

Everything listens on 127.0.0.1 (--port, and the two that follow), and whoever
can reach that can push. So this is for one person on one machine. The cluster's
nodes pull from the registry only if they share this machine's loopback; else
name one that they reach with --registry.`,
		Example: `  # a real Kubernetes on this machine, from a checkout of the source
  slipway up --test-bed

  slipway up --kubeconfig admin.kubeconfig
  git clone http://127.0.0.1:4780/` + local.Repository + `.git`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.testBed && (g.kubeconfig != "" || f.registry != "") {
				return usage("--test-bed brings its own cluster and registry; leave out --kubeconfig and --registry")
			}
			return f.run(cmd.Context(), g)
		},
	}
	set := cmd.Flags()
	set.StringVar(&f.cluster, "cluster", "demo", "name of the cluster, as under clusters/ in the environment repo")
	set.StringVar(&f.data, "data", dataDir(), "folder for all that lasts: repository, images, keys")
	set.IntVar(&f.port, "port", local.DefaultPort, "port of the Git host; server and registry have the two that follow")
	set.StringVar(&f.registry, "registry", "", "HOST:PORT of a registry that runs already, instead of one here")
	set.StringVar(&f.metrics, "metrics-address", "127.0.0.1:4783", "address of /metrics, /healthz and /readyz, 0 for none")
	set.BoolVar(&f.testBed, "test-bed", false, "start a Kubernetes from this checkout; its registry has another port at each start")
	set.BoolVar(&f.allowUnisolated, "allow-unisolated", false, "run steps of pipelines as plain processes if this machine cannot isolate them; they can then read all that you can")
	set.BoolVar(&f.verbose, "verbose", false, "log to stderr instead of DATA/up.log")
	return cmd
}

// dataDir is where users keep what programs must not lose.
func dataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "slipway")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "slipway")
	}
	return "slipway-data"
}

func (f upFlags) run(ctx context.Context, g *globals) (err error) {
	if err := os.MkdirAll(f.data, 0o700); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	log, closeLog, err := f.logger()
	if err != nil {
		return err
	}
	defer closeLog()
	ctrl.SetLogger(log)
	kubeconfig := g.kubeconfig
	if f.testBed {
		bed, err := local.StartTestBed(ctx, filepath.Join(f.data, "testbed"), os.Stderr)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, bed.Stop()) }()
		kubeconfig, f.registry = bed.Kubeconfig, bed.Registry
	}
	options, err := f.options(g, kubeconfig, log)
	if err != nil {
		return err
	}
	l, err := local.Start(ctx, options)
	if err != nil {
		return err
	}
	if err := f.say(g, l, kubeconfig); err != nil {
		return err
	}
	return l.Run(ctx)
}

func (f upFlags) logger() (logr.Logger, func(), error) {
	if f.verbose {
		return logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil)), func() {}, nil
	}
	file, err := os.OpenFile(filepath.Join(f.data, "up.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return logr.Logger{}, nil, fmt.Errorf("log: %w", err)
	}
	return logr.FromSlogHandler(slog.NewJSONHandler(file, nil)), func() { _ = file.Close() }, nil
}

func (f upFlags) options(g *globals, kubeconfig string, log logr.Logger) (local.Options, error) {
	config, err := wire.KubeConfig(kubeconfig, g.context)
	if err != nil {
		return local.Options{}, err
	}
	files, err := install.Starter(f.cluster)
	if err != nil {
		return local.Options{}, usageError{err}
	}
	var starter []gitsource.Change
	for _, name := range slices.Sorted(maps.Keys(files)) {
		starter = append(starter, gitsource.Change{Path: name, Content: files[name]})
	}
	return local.Options{
		Config: config, Cluster: f.cluster, Namespace: g.namespace, Data: f.data, Port: f.port,
		Registry: f.registry, Metrics: f.metrics, Starter: starter, AllowUnisolated: f.allowUnisolated, Log: log,
		Install: func(url string) ([]*unstructured.Unstructured, error) {
			return install.Manifests(install.Options{
				Cluster: f.cluster, URL: url, Branch: local.Branch, Namespace: g.namespace, AgentUser: local.AgentUser,
			})
		},
	}, nil
}

// say prints where everything is and what to do next.
func (f upFlags) say(g *globals, l *local.Local, kubeconfig string) error {
	if kubeconfig == "" {
		kubeconfig = g.env("KUBECONFIG")
	}
	what := struct {
		Git        string `json:"git"`
		Server     string `json:"server"`
		ServerCA   string `json:"serverCA"`
		Registry   string `json:"registry"`
		Kubeconfig string `json:"kubeconfig,omitempty"`
		Data       string `json:"data"`
		SigningKey string `json:"signingKey,omitempty"`
		Building   bool   `json:"building"`
	}{l.GitURL, l.ServerURL, l.ServerTrust, l.Registry, kubeconfig, f.data, l.SigningKey, l.NotBuilding == ""}
	return g.print(what, func(w io.Writer) {
		fmt.Fprintf(w, "environment repo  %s\nserver            %s (trust %s)\nregistry          %s\ndata and log      %s\n\n",
			l.GitURL, l.ServerURL, l.ServerTrust, l.Registry, f.data)
		if l.NotBuilding != "" {
			fmt.Fprintf(w, "PUSHES ARE NOT BUILT: %s\n\n", l.NotBuilding)
		} else {
			fmt.Fprintf(w, "pushes to         %sNAME.git are built as .pipeline.yml says; images are signed by %s\n\n", strings.TrimSuffix(l.GitURL, local.Repository+".git"), l.SigningKey)
		}
		fmt.Fprintln(w, "next, in another terminal:")
		if kubeconfig != "" {
			fmt.Fprintf(w, "  export KUBECONFIG=%s\n", kubeconfig)
		}
		fmt.Fprintf(w, "  slipway status\n  git clone %s\n", l.GitURL)
		fmt.Fprintf(w, "  slipway promote APP --env ENVIRONMENT --image %s/APP@sha256:... --repo %s\n\nCtrl-C ends it; what is there stays.\n", l.Registry, l.GitURL)
	})
}
