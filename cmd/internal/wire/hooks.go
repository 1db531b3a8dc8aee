package wire

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/webhook"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler"
)

const (
	// secretFor is how long the secret of a webhook is remembered: strangers who send messages cost the API server no more
	// than one request in this time, and a changed secret counts after it.
	secretFor = 30 * time.Second
	// hookBody is more than hosts send of a push that an agent can learn anything from, and small enough for an agent's memory.
	hookBody = 8 << 20
)

// sourceHooks receives the webhooks of GitSources: a message nudges the sources of its repository, and nothing of it is
// believed beyond that.
type sourceHooks struct {
	sources   client.Reader // cached
	secrets   client.Reader // uncached
	namespace string
	nudge     func(ctx context.Context, url string) error
	log       logr.Logger
	now       func() time.Time

	mu    sync.Mutex
	known map[string]knownSecret // by name of the Secret
}

type knownSecret struct {
	token policy.Secret
	until time.Time
}

// handler serves webhook.Path.
func (s *sourceHooks) handler() (http.Handler, error) {
	return webhook.New(webhook.Options{Find: s.find, Accept: s.accept, MaxBody: hookBody, Log: s.log})
}

func (s *sourceHooks) source(ctx context.Context, name string) (*v1alpha1.GitSource, error) {
	source := &v1alpha1.GitSource{}
	err := s.sources.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, source)
	return source, err
}

func (s *sourceHooks) find(ctx context.Context, name string) (webhook.Hook, bool, error) {
	source, err := s.source(ctx, name)
	if apierrors.IsNotFound(err) || err == nil && source.Spec.Webhook == nil {
		return webhook.Hook{}, false, nil
	}
	if err != nil {
		return webhook.Hook{}, false, err
	}
	kind, err := forge.ParseKind(source.Spec.Webhook.Kind)
	if err != nil {
		return webhook.Hook{}, false, fmt.Errorf("gitsource %s: webhook: %w", name, err)
	}
	token, err := s.token(ctx, source.Spec.Webhook.SecretRef.Name)
	if err != nil {
		return webhook.Hook{}, false, fmt.Errorf("gitsource %s: webhook: %w", name, err)
	}
	return webhook.Hook{Name: name, Kind: kind, Secret: token, CloneURL: source.Spec.URL}, true, nil
}

// token reads a Secret, or remembers what was read of it, that it cannot be had included.
func (s *sourceHooks) token(ctx context.Context, name string) (policy.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, read := s.known[name]
	if !read || s.now().After(known.until) {
		var secret corev1.Secret
		err := s.secrets.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, &secret)
		if err != nil && !apierrors.IsNotFound(err) {
			return policy.Secret{}, fmt.Errorf("secret %s: %w", name, err)
		}
		known = knownSecret{token: policy.NewSecret(string(secret.Data["token"])), until: s.now().Add(secretFor)}
		s.known[name] = known
	}
	if known.token.Empty() {
		return policy.Secret{}, fmt.Errorf("secret %s: not there, or without the key token", name)
	}
	return known.token, nil
}

// accept nudges once for all sources of the repository: they share one fetch.
func (s *sourceHooks) accept(ctx context.Context, push forge.Push) error {
	source, err := s.source(ctx, push.Hook)
	if err != nil {
		return err
	}
	return s.nudge(ctx, source.Spec.URL)
}

// addHooks listens at once, so that a port that is taken is told at the start.
func addHooks(ctx context.Context, mgr manager.Manager, o AgentOptions, unfenced *rest.Config, sources *reconciler.SourceReconciler) error {
	if o.Webhooks == "" || o.Webhooks == "0" {
		return nil
	}
	direct, err := client.New(unfenced, client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	hooks := &sourceHooks{
		sources: mgr.GetClient(), secrets: mgr.GetAPIReader(), namespace: o.Namespace, log: o.Log.WithName("webhook"), now: o.Now,
		known: map[string]knownSecret{},
	}
	hooks.nudge = func(ctx context.Context, url string) error {
		select {
		case <-mgr.Elected():
			sources.Nudge(ctx, url)
			return nil
		default:
			return hooks.passOn(ctx, direct, url)
		}
	}
	handler, err := hooks.handler()
	if err != nil {
		return err
	}
	var listens net.ListenConfig
	listener, err := listens.Listen(ctx, "tcp", o.Webhooks)
	if err != nil {
		return fmt.Errorf("webhooks: %w (choose another --webhook-address)", err)
	}
	return mgr.Add(everywhere(func(ctx context.Context) error { return serveHooks(ctx, listener, handler) }))
}

// passOn has the leading agent look, by the annotation with which `slipway reconcile` asks: a Service leads webhooks to any
// agent, and the one that waits has no loop of its own. It is the one thing that such an agent writes.
func (s *sourceHooks) passOn(ctx context.Context, direct client.Client, url string) error {
	var sources v1alpha1.GitSourceList
	if err := s.sources.List(ctx, &sources, client.InNamespace(s.namespace)); err != nil {
		return err
	}
	asked := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, manifests.AnnotationReconcile, s.now().UTC().Format(time.RFC3339Nano))
	for i := range sources.Items {
		source := &sources.Items[i]
		if source.Spec.URL != url {
			continue
		}
		if err := direct.Patch(ctx, source.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(asked))); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("gitsource %s: a push cannot be told to the leading agent: %w", source.Name, err)
		}
	}
	return nil
}

// everywhere is a runnable of agents that do not lead, too.
type everywhere func(context.Context) error

// Start runs it.
func (e everywhere) Start(ctx context.Context) error { return e(ctx) }

// NeedLeaderElection is false.
func (everywhere) NeedLeaderElection() bool { return false }

// serveHooks serves until ctx ends. Its messages are signed, not secret: TLS is up to what stands before it.
func serveHooks(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("webhooks: %w", err)
	case <-ctx.Done():
	}
	// What has arrived is answered.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := server.Shutdown(last)
	<-ended
	return err
}
