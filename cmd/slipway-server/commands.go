package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// workerCommand executes jobs apart from the server.
func workerCommand(data string) *cobra.Command {
	var config, name string
	cmd := &cobra.Command{
		Use:   "worker --config FILE",
		Short: "Execute jobs of a server that runs elsewhere",
		Long: `Execute jobs of a server that runs elsewhere.

The file is like the server's, with queue.url and the queue's credentials, the
sources, and the registries that images are pushed to. A worker never sees the
signing key. It may be killed at any moment: its jobs go to another one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			read, err := server.ReadConfig(config)
			if err != nil {
				return err
			}
			return server.RunWorker(cmd.Context(), server.WorkerOptions{
				Config: read, Name: name, Data: data, Log: logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil)),
			})
		},
	}
	set := cmd.Flags()
	set.StringVar(&config, "config", "", "file with queue, sources and registries (required)")
	set.StringVar(&name, "name", "", "name of this worker; default that of the file, else the host's")
	set.StringVar(&data, "data", filepath.Join(filepath.Dir(data), "worker"), "folder for workspaces and caches; may be lost at any time")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// keyCommand makes the key that images are signed with.
func keyCommand() *cobra.Command {
	var out, passwordFile string
	cmd := &cobra.Command{
		Use:   "key --out FILE",
		Short: "Make a key to sign images with",
		Long: `Make a key to sign images with, in the format of cosign. The private key is
written to FILE, encrypted if a password is given, and the public one to FILE.pub;
that one belongs into the ImagePolicies of the clusters.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var password policy.Secret
			if passwordFile != "" {
				content, err := os.ReadFile(passwordFile)
				if err != nil {
					return fmt.Errorf("--password-file: %w", err)
				}
				password = policy.NewSecret(strings.TrimSpace(string(content)))
			}
			private, public, err := sigstore.GenerateKey(password)
			if err != nil {
				return err
			}
			if err := writeNew(out, []byte(private.Reveal()), 0o600); err != nil {
				return err
			}
			if err := writeNew(out+".pub", public, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s signs, %s.pub verifies\n", out, out)
			return nil
		},
	}
	set := cmd.Flags()
	set.StringVar(&out, "out", "", "file for the private key, which must not exist (required)")
	set.StringVar(&passwordFile, "password-file", "", "file with a password to encrypt it with")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// tokenCommand makes a token for the API.
func tokenCommand() *cobra.Command {
	var write bool
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for the API",
		Long: `Make a token for the API. The token itself is printed to the standard error and
kept nowhere; the line that admits it, which holds no secret, to the standard output.`,
		Example: "  slipway-server token robin --write >> tokens",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope := console.Read
			if write {
				scope = console.Write
			}
			secret, line, err := console.NewToken(args[0], scope)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), secret.Reveal())
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, "it may also cancel and retry runs")
	return cmd
}

// writeNew writes a file that is not there yet: a key that is overwritten is lost.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
