package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/promoter"
)

// Exit codes, for scripts.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitNo     = 3 // the answer is no: differences, held, frozen, not ready
)

// globals are the flags of all commands, and the world outside.
type globals struct {
	kubeconfig, context, namespace string
	repo, branch                   string
	output                         string

	out      io.Writer
	env      func(string) string
	terminal terminal

	begun bool // the command line was understood; errors from here on are not about it
}

// errNo is a plain "no" as the answer; the text was printed already.
var errNo = errors.New("no")

// usageError is a mistake on the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, g *globals, args []string, complain func(error)) int {
	cmd := rootCommand(g)
	cmd.SetArgs(args)
	cmd.SetOut(g.out)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if !g.begun {
		err = usageError{err}
	}
	if !errors.Is(err, errNo) {
		complain(err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var wrong usageError
	var held *promoter.HeldError
	var frozen *promoter.FrozenError
	var conflict *promoter.ConflictError
	switch {
	case errors.As(err, &wrong):
		return exitUsage
	case errors.Is(err, errNo), errors.As(err, &held), errors.As(err, &frozen), errors.As(err, &conflict), errors.Is(err, forge.ErrBlocked):
		return exitNo
	}
	return exitFailed
}

func rootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "slipway",
		Short: "Deliver from Git to Kubernetes, and back",
		Long: `Deliver from Git to Kubernetes, and back.

Commands that change something (promote, rollback, hold, freeze) write commits to
the environment repo, with your own Git credentials; suspend, resume and reconcile
ask the agent of a cluster. Commands that look (status, tree, events, explain, diff,
trace) read the cluster of your kubeconfig. None of them needs a server; only runs and
logs ask one.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the answer is no (there are
differences, an image is held, an environment is frozen, something is not ready).`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&g.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&g.context, "context", "", "context of the kubeconfig")
	flags.StringVarP(&g.namespace, "namespace", "n", "slipway-system", "namespace of the Applications")
	flags.StringVar(&g.repo, "repo", "", "URL of the environment repo (default: SLIPWAY_REPO, then the remote origin of this folder, then what the cluster follows)")
	flags.StringVar(&g.branch, "branch", "main", "branch that the agents follow")
	flags.StringVarP(&g.output, "output", "o", "human", "human or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if g.output != "human" && g.output != "json" {
			return usage("--output %s: want human or json", g.output)
		}
		return nil
	}
	root.AddCommand(
		initCommand(g), installCommand(g), bootstrapCommand(g), uninstallCommand(g), upCommand(g),
		statusCommand(g), treeCommand(g), eventsCommand(g), explainCommand(g), diffCommand(g), traceCommand(g), runsCommand(g), logsCommand(g),
		promoteCommand(g), rollbackCommand(g), holdCommand(g), freezeCommand(g), suspendCommand(g), resumeCommand(g), reconcileCommand(g), rolloutCommand(g),
		versionCommand(g),
	)
	g.begins(root.Commands())
	return root
}

// begins lets commands, and those below them, note that their command line was understood.
func (g *globals) begins(commands []*cobra.Command) {
	for _, cmd := range commands {
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			g.begun = true
			return run(cmd, args)
		}
		g.begins(cmd.Commands())
	}
}

// args turns cobra's complaint about arguments into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
		}
		return nil
	}
}

func (g *globals) kube() (client.WithWatch, *rest.Config, error) {
	config, err := wire.KubeConfig(g.kubeconfig, g.context)
	if err != nil {
		return nil, nil, err
	}
	kube, err := wire.KubeClient(config)
	return kube, config, err
}

func cacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "slipway")
	}
	return filepath.Join(os.TempDir(), "slipway")
}

func versionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  slipway version",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return g.print(map[string]string{"version": wire.Version}, func(w io.Writer) {
				fmt.Fprintln(w, "slipway", wire.Version)
			})
		},
	}
}
