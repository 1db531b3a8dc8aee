// Command slipway-server builds and promotes what is pushed, carries out the reverts
// that agents ask for, and tells agents of new commits. What it promotes and reverts is in Git.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/policy"
)

func main() {
	wire.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-server:", err)
		os.Exit(1)
	}
}

type flags struct {
	config                         string
	repos                          []string
	branch, username, passwordFile string
	listen, data, metrics          string
	tlsCert, tlsKey, selfSigned    string
	tlsHosts                       []string
	insecureHTTP                   bool
	commitKey                      string
	poll                           time.Duration
}

func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "slipway-server --config FILE | --repo URL",
		Short: "Build and promote what is pushed, carry out reverts, and tell agents of new commits",
		Long: `Build and promote what is pushed, carry out reverts for agents, and tell them of new commits.

With --config the file names environment repositories, sources that are built
by their .pipeline.yml, registries, the signing key and workers. With --repo
alone nothing is built.

Agents need no login. A revert request is carried out if it is signed by the
key that stands in the environment repository for the agent's cluster
(.slipway/agents/CLUSTER.pub), and gives the same tree when it is computed here.
The process may be killed at any moment and goes on where it was. What it must
not lose is in Git, and runs that are under way in --data.`,
		Example: `  slipway-server key --out cosign.key
  slipway-server --config slipway-server.yaml --tls-cert tls.crt --tls-key tls.key
  slipway-server worker --config worker.yaml   # on another machine

  # reverts alone
  slipway-server --repo https://git.example.com/environments.git \
    --git-username slipway --git-password-file /run/secrets/git \
    --tls-cert tls.crt --tls-key tls.key

  # with an authority of its own; agents get DIR/ca.crt as --server-ca
  slipway-server --repo https://git.example.com/environments.git --tls-self-signed DIR --tls-host slipway.example.com`,
		Version:       wire.Version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), f) },
	}
	data := filepath.Join(os.TempDir(), "slipway-server")
	if dir, err := os.UserCacheDir(); err == nil {
		data = filepath.Join(dir, "slipway", "server")
	}
	set := cmd.Flags()
	set.StringVar(&f.config, "config", "", "file with repositories, registries, signing key and workers")
	set.StringArrayVar(&f.repos, "repo", nil, "URL of an environment repository, spelled as in the GitSources; repeat for more")
	set.StringVar(&f.branch, "branch", "main", "branch that the agents follow")
	set.StringVar(&f.username, "git-username", "", "user name at the Git host")
	set.StringVar(&f.passwordFile, "git-password-file", "", "file with the password or token for the Git host")
	set.StringVar(&f.listen, "listen", ":8443", "address of the API")
	set.StringVar(&f.tlsCert, "tls-cert", "", "PEM file with the certificate of the API; read again when it is renewed")
	set.StringVar(&f.tlsKey, "tls-key", "", "PEM file with its key")
	set.StringVar(&f.selfSigned, "tls-self-signed", "", "folder for an authority of this server's own, instead of --tls-cert; agents trust its ca.crt")
	set.StringArrayVar(&f.tlsHosts, "tls-host", nil, "name or address in the self-signed certificate, besides localhost; repeat for more")
	set.BoolVar(&f.insecureHTTP, "insecure-http", false, "no TLS; only on a loopback address")
	set.StringVar(&f.data, "data", data, "folder for Git objects, which may be lost, and the queue, with which runs under way would be")
	set.StringVar(&f.commitKey, "commit-key", "", "PEM file with the Ed25519 key that signs the commits this server makes; without it they are not signed")
	set.StringVar(&f.metrics, "metrics-address", ":8080", "address of /metrics, /healthz and /readyz, 0 for none")
	set.DurationVar(&f.poll, "poll", 5*time.Second, "time between two looks for new commits, 0 for never")
	cmd.MarkFlagsOneRequired("config", "repo")
	cmd.MarkFlagsMutuallyExclusive("config", "repo")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	cmd.MarkFlagsMutuallyExclusive("tls-cert", "tls-self-signed", "insecure-http")
	cmd.AddCommand(workerCommand(data), keyCommand(), commitKeyCommand(), tokenCommand())
	return cmd
}

func run(ctx context.Context, f flags) error {
	log := logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil))
	options := server.Options{Branch: f.branch, Listen: f.listen, Data: f.data, Metrics: f.metrics, Poll: f.poll, Log: log}
	var err error
	if options.TLS, err = f.certificate(log); err != nil {
		return err
	}
	if f.commitKey != "" {
		if options.CommitKey, err = wire.ReadKey(f.commitKey); err != nil {
			return fmt.Errorf("--commit-key: %w", err)
		}
	}
	var password policy.Secret
	if f.passwordFile != "" {
		content, err := os.ReadFile(f.passwordFile)
		if err != nil {
			return fmt.Errorf("--git-password-file: %w", err)
		}
		password = policy.NewSecret(strings.TrimSpace(string(content)))
	}
	if f.config != "" {
		if err := f.configure(&options); err != nil {
			return err
		}
	}
	for _, url := range f.repos {
		options.Repositories = append(options.Repositories, server.Repository{URL: url, Username: f.username, Password: password})
	}
	api, err := server.New(ctx, options)
	if err != nil {
		return err
	}
	return api.Run(ctx)
}

// configure takes what --config says.
func (f flags) configure(options *server.Options) error {
	config, err := server.ReadConfig(f.config)
	if err != nil {
		return err
	}
	options.Build = &server.Build{Config: config}
	for _, e := range config.Environments {
		repository, err := e.Repository()
		if err != nil {
			return err
		}
		options.Repositories = append(options.Repositories, repository)
	}
	return nil
}

// certificate returns nil for plain HTTP.
func (f flags) certificate(log logr.Logger) (*tls.Config, error) {
	switch {
	case f.tlsCert != "":
		return server.CertificateFiles(f.tlsCert, f.tlsKey)
	case f.selfSigned != "":
		config, trust, err := server.SelfSigned(f.selfSigned, append([]string{"localhost", "127.0.0.1", "::1"}, f.tlsHosts...))
		if err == nil {
			log.Info("certificate of its own authority", "trust", trust)
		}
		return config, err
	case f.insecureHTTP:
		return nil, nil
	}
	return nil, errors.New("no certificate: give --tls-cert and --tls-key, or --tls-self-signed DIR, or --insecure-http on a loopback address")
}
