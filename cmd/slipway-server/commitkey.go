package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource/signature"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// commitKeyCommand makes the key that the server signs its commits with.
func commitKeyCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "commit-key --out FILE",
		Short: "Make a key to sign commits with",
		Long: `Make a key to sign commits with. The private key is written to FILE, for
--commit-key, and the public one to FILE.pub: commit that one to the environment
repository as ` + environment.ServerKeyPath + `, so that agents whose sources take
signed commits only (spec.verify of a GitSource) know it. The line that is printed
belongs into their allowed_signers, and into those of people, for git verify-commit.`,
		Example: "  slipway-server commit-key --out commit-key.pem >> allowed_signers",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, file, err := wire.NewKey()
			if err != nil {
				return err
			}
			line, err := signature.AllowedSigner("slipway-server", wire.PublicKey(key))
			if err != nil {
				return err
			}
			if err := writeNew(out, file, 0o600); err != nil {
				return err
			}
			if err := writeNew(out+".pub", undo.FormatPublicKey(wire.PublicKey(key)), 0o644); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the private key, which must not exist (required)")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}
