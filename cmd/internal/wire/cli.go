package wire

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// OpenRepository opens a person's store of a repository below cacheDir.
func OpenRepository(ctx context.Context, url, username string, password policy.Secret, cacheDir string) (*gogit.Store, error) {
	sum := sha256.Sum256([]byte(url))
	options := gogit.Options{Dir: filepath.Join(cacheDir, "repos", hex.EncodeToString(sum[:8])), URL: url}
	if username != "" || !password.Empty() {
		options.Auth = &gogit.Auth{Username: username, Password: password}
	}
	return gogit.Open(ctx, options)
}

// KubeConfig reads a kubeconfig: the given file, else KUBECONFIG, else ~/.kube/config.
func KubeConfig(file, contextName string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: contextName}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w (name a file with --kubeconfig or KUBECONFIG)", err)
	}
	config.UserAgent = "slipway/" + Version
	config.QPS, config.Burst = -1, -1
	return config, nil
}

// KubeClient returns a client that knows Slipway's kinds and the built-in ones.
func KubeClient(config *rest.Config) (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	kube, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", config.Host, err)
	}
	return kube, nil
}

// KubeContexts lists the contexts of a kubeconfig, sorted.
func KubeContexts(file string) ([]string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	config, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w (name a file with --kubeconfig or KUBECONFIG)", err)
	}
	return slices.Sorted(maps.Keys(config.Contexts)), nil
}
