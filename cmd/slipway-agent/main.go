// Command slipway-agent keeps one cluster at what its environment repository says.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
)

func main() {
	wire.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-agent:", err)
		os.Exit(1)
	}
}

type flags struct {
	kubeconfig, cluster, namespace, cacheDir, metrics, health, webhooks, server, serverCA, key, registryLogins, prometheus string
	elect                                                                                                                  bool
	lease                                                                                                                  time.Duration
}

func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:           "slipway-agent --cluster NAME",
		Short:         "Keep this cluster at what its environment repository says",
		Example:       "  slipway-agent --cluster production-eu --kubeconfig agent.kubeconfig",
		Version:       wire.Version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), f) },
	}
	cacheDir := filepath.Join(os.TempDir(), "slipway-agent")
	if dir, err := os.UserCacheDir(); err == nil {
		cacheDir = filepath.Join(dir, "slipway", "agent")
	}
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file; default: the pod's service account, or KUBECONFIG")
	cmd.Flags().StringVar(&f.cluster, "cluster", "", "name of this cluster, as under clusters/ in the environment repository (required)")
	cmd.Flags().StringVar(&f.namespace, "namespace", "slipway-system", "namespace of the Applications")
	cmd.Flags().StringVar(&f.cacheDir, "cache-dir", cacheDir, "folder for Git objects and rendered sets; may be lost at any time")
	cmd.Flags().StringVar(&f.metrics, "metrics-address", ":8080", "address of /metrics, 0 for none")
	cmd.Flags().StringVar(&f.health, "health-address", ":8081", "address of /healthz and /readyz, 0 for none")
	cmd.Flags().StringVar(&f.webhooks, "webhook-address", "0", "address that Git hosts send webhooks of GitSources to, at /v1/hooks/NAME, by plain HTTP; 0 for none")
	cmd.Flags().StringVar(&f.server, "server", "", "URL of slipway-server; without it the agent pushes reverts itself")
	cmd.Flags().StringVar(&f.serverCA, "server-ca", "", "PEM file with the certificate authority of the server")
	cmd.Flags().StringVar(&f.key, "key", "", "PEM file with the Ed25519 key that signs revert requests and the agent's own commits (required with --server)")
	cmd.Flags().StringVar(&f.registryLogins, "registry-logins", "", "file as docker login writes it, to read the signatures of images that an ImagePolicy covers; may be missing")
	cmd.Flags().BoolVar(&f.elect, "leader-elect", inCluster(), "let several agents of this cluster agree, by the Lease "+wire.LeaseName+", on one that works (default: true in a pod)")
	cmd.Flags().DurationVar(&f.lease, "lease-duration", wire.DefaultLease, "how long the others wait for a leader that has died")
	cmd.Flags().StringVar(&f.prometheus, "prometheus", "", "URL of the Prometheus that Rollouts measure with; without it their metrics are unavailable, which pauses")
	_ = cmd.MarkFlagRequired("cluster")
	return cmd
}

// kubeConfig reads the given file, which is one file even if its name has a colon in it, or else takes what there is: KUBECONFIG,
// the pod's ServiceAccount, ~/.kube/config.
func kubeConfig(file string) (*rest.Config, error) {
	if file != "" {
		return wire.KubeConfig(file, "")
	}
	kube, err := config.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w (name a file with --kubeconfig)", err)
	}
	return kube, nil
}

func run(ctx context.Context, f flags) error {
	log := logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil))
	ctrl.SetLogger(log)
	kube, err := kubeConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	options := wire.AgentOptions{
		Config: kube, Cluster: f.cluster, Namespace: f.namespace, CacheDir: f.cacheDir,
		Metrics: f.metrics, Health: f.health, Webhooks: f.webhooks, Server: f.server, RegistryLogins: f.registryLogins, Prometheus: f.prometheus, Log: log,
	}
	if f.elect {
		if options.Lease = f.lease; f.lease < wire.LeastLease {
			return fmt.Errorf("--lease-duration %s: want at least %s", f.lease, wire.LeastLease)
		}
	}
	if f.server != "" {
		if f.key == "" {
			return errors.New("--key is required with --server; make a key with 'openssl genpkey -algorithm ed25519'")
		}
		if options.HTTP, err = trusting(f.serverCA); err != nil {
			return err
		}
	}
	if f.key != "" {
		if options.Key, err = wire.ReadKey(f.key); err != nil {
			return err
		}
	}
	agent, err := wire.NewAgent(ctx, options)
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

// inCluster reports whether this is a pod with a service account.
func inCluster() bool {
	_, err := rest.InClusterConfig()
	return err == nil
}

func trusting(caFile string) (*http.Client, error) {
	if caFile == "" {
		return &http.Client{}, nil
	}
	content, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("server CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("server CA %s: no certificate in it", caFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: transport}, nil
}
