package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/manifests/install"
)

func initCommand(g *globals) *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "init FOLDER",
		Short: "Write a starter environment repo",
		Long: `Write the files of a starter environment repo: two environments, one cluster, one
sample application. Nothing that is there is overwritten.`,
		Example: `  slipway init fleet --cluster dev-eu
  cd fleet && git init -b main && git add -A && git commit -m "Start the fleet"`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			files, err := install.Starter(cluster)
			if err != nil {
				return usageError{err}
			}
			names := slices.Sorted(maps.Keys(files))
			for _, name := range names {
				if _, err := os.Lstat(filepath.Join(given[0], name)); !errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("%s is there already; init writes into an empty folder", filepath.Join(given[0], name))
				}
			}
			for _, name := range names {
				target := filepath.Join(given[0], name)
				if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // a repository that people share
					return err
				}
				if err := os.WriteFile(target, files[name], 0o644); err != nil { //nolint:gosec // see above
					return err
				}
			}
			return g.print(map[string]any{"folder": given[0], "files": names}, func(w io.Writer) {
				for _, name := range names {
					fmt.Fprintln(w, filepath.Join(given[0], name))
				}
				fmt.Fprintf(w, "\nnext: push it to a Git host, then\n  slipway install --cluster %s --url https://HOST/REPO.git --apply\n", cluster)
			})
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "demo", "name of the first cluster")
	return cmd
}
