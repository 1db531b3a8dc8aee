package wire

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	fluxcontroller "github.com/fluxcd/pkg/runtime/controller"
	fluxmetrics "github.com/fluxcd/pkg/runtime/metrics"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/promoter/undo"
	"github.com/slipway-cd/slipway/reconciler"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/report"
	"github.com/slipway-cd/slipway/rollout"
	"github.com/slipway-cd/slipway/rollout/prom"
)

// AgentOptions say how one agent runs.
type AgentOptions struct {
	Config    *rest.Config
	Cluster   string // the name under clusters/ in the environment repository
	Namespace string // of the Applications
	CacheDir  string // stores and memo; may be lost at any time
	Metrics   string // address of /metrics; "0" for none
	Health    string // address of /healthz and /readyz; "0" for none
	Webhooks  string // address that Git hosts send to; "0" or empty for none
	// Server that carries out reverts and nudges; empty for an agent that pushes reverts itself.
	Server string
	// Key signs revert requests, and the commits that the agent makes itself; required with Server.
	Key ed25519.PrivateKey
	// RegistryLogins is a file as `docker login` writes it, for registries that do not show signatures, artifacts
	// and charts to everybody. It may be missing.
	RegistryLogins string
	// Prometheus is the URL of the server that Rollouts measure with; empty for none.
	Prometheus string
	// HTTP trusts the server's certificate.
	HTTP *http.Client
	// Lease makes several agents of a cluster agree on one that works: how long the others wait for one that has died. Zero
	// for an agent that is alone.
	Lease time.Duration
	Log   logr.Logger
	// Now is the clock of all loops; default: that of this machine, set by the API server's.
	Now func() time.Time
}

// Agent is the loops of one cluster, ready to run.
type Agent struct {
	manager  manager.Manager
	renderer *renderer
}

// NewAgent wires an agent. Its context bounds the watches and ends with the agent.
func NewAgent(ctx context.Context, o AgentOptions) (*Agent, error) {
	if o.Server != "" && o.Key == nil {
		return nil, errors.New("agent: with a server a signing key is required (--key); make one with 'slipway install --new-key'")
	}
	o.Config = rest.CopyConfig(o.Config)
	if o.Now == nil {
		clock := &clusterClock{machine: machineClock()}
		o.Config.Wrap(clock.around)
		o.Now = clock.now
	}
	o.Config.QPS, o.Config.Burst = -1, -1 // the API server's priority and fairness decides, not a client-side guess
	o.Config.UserAgent = "slipway-agent/" + Version
	o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper { return spread{next} })
	unfenced := rest.CopyConfig(o.Config)
	mgr, err := newManager(&o)
	if err != nil {
		return nil, err
	}
	kube, err := discovery.NewDiscoveryClientForConfig(o.Config)
	if err != nil {
		return nil, err
	}
	version, err := kube.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", o.Config.Host, err)
	}
	renderer, err := newRenderer(filepath.Join(o.CacheDir, "memo"), version.GitVersion, metrics.Registry)
	if err != nil {
		return nil, err
	}
	if err := addLoops(ctx, mgr, o, unfenced, renderer); err != nil {
		return nil, errors.Join(err, renderer.pool.Close())
	}
	return &Agent{manager: mgr, renderer: renderer}, nil
}

// Run runs until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	return errors.Join(a.manager.Start(ctx), a.renderer.pool.Close())
}

func newManager(o *AgentOptions) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	own := cache.ByObject{Namespaces: map[string]cache.Config{o.Namespace: {}}}
	inputs := own
	inputs.Transform = inputMetadata
	options := ctrl.Options{
		Scheme:                 scheme,
		NewCache:               cacheOfOlder,
		Logger:                 o.Log,
		Metrics:                metricsserver.Options{BindAddress: o.Metrics},
		HealthProbeBindAddress: o.Health,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.Application{}: own,
			&v1alpha1.GitSource{}:   own,
			&v1alpha1.ImagePolicy{}: own,
			&corev1.ConfigMap{}:     inputs,
			&corev1.Secret{}:        inputs,
			&v1alpha1.OCISource{}:   own,
			&v1alpha1.ChartSource{}: own,

			&v1alpha1.ApplicationSet{}: own,
			&v1alpha1.Notification{}:   own,
		}},
	}
	if err := elect(o, &options); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	mgr, err := ctrl.NewManager(o.Config, options)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("caches", filled(mgr.GetCache())))
}

// filled says that an agent is ready once it knows the cluster.
func filled(c cache.Cache) healthz.Checker {
	return func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), 100*time.Millisecond)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			return errors.New("the caches are not filled yet")
		}
		return nil
	}
}

func addLoops(ctx context.Context, mgr manager.Manager, o AgentOptions, unfenced *rest.Config, renderer *renderer) error {
	applier, err := apply.New(apply.Options{Config: o.Config, Manager: manifests.FieldManager})
	if err != nil {
		return err
	}
	var applications *reconciler.ApplicationReconciler
	live := &liveCluster{namespace: o.Namespace, applier: applier}
	live.watcher = apply.NewWatcher(ctx, applier, func(app types.NamespacedName, _ manifests.Ref) { applications.Changed(app) })
	sign, err := Signing(o.Key)
	if err != nil {
		return err
	}
	stores := newRepositories(filepath.Join(o.CacheDir, "git"), o.Now, sign)
	recorded, err := fluxMetrics(mgr)
	if err != nil {
		return err
	}
	sources, err := reconciler.NewSource(reconciler.SourceOptions{
		Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Repositories: stores, Now: o.Now, Metrics: recorded,
	})
	if err != nil {
		return err
	}
	registries, err := newArtifacts(filepath.Join(o.CacheDir, "oci"), o.RegistryLogins, o.Now)
	if err != nil {
		return err
	}
	if err := registries.follow(mgr, o.Now, recorded); err != nil {
		return err
	}
	//lint:ignore SA1019 fluxcd/pkg/runtime speaks this recorder, and events of the other API merge less
	recorder := mgr.GetEventRecorderFor("slipway")
	options := reconciler.ApplicationOptions{
		Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Repositories: stores, Artifacts: registries, Renderer: renderer,
		Cluster: live, Judge: live, Logs: live, As: asAccount, Reverter: reconciler.Pusher{Failpoint: failpoint},
		Images:      policy.Chain[policy.ImageUse]{policy.ImagesByDigest()},
		Verifier:    newVerifier(o),
		Events:      recorder,
		Now:         o.Now,
		ClusterName: o.Cluster, CommitKey: PublicKey(o.Key), Pushed: sources.Nudge, Failpoint: failpoint, Metrics: recorded,
	}
	if o.Server != "" {
		if err := connect(mgr, o, &options, sources); err != nil {
			return err
		}
	}
	if applications, err = reconciler.NewApplication(options); err != nil {
		return err
	}
	meter, err := newMeter(o.Prometheus)
	if err != nil {
		return err
	}
	rollouts, err := rollout.New(rollout.Options{Now: o.Now, Events: options.Events, Meter: meter, Servers: servers{}, Metrics: metrics.Registry, Failpoint: failpoint})
	if err != nil {
		return err
	}
	return errors.Join(sources.SetupWithManager(mgr), applications.SetupWithManager(mgr),
		reconciler.NewApplicationSet(applications, &pullRequests{}).SetupWithManager(mgr), rollouts.SetupWithManager(mgr), addHooks(ctx, mgr, o, unfenced, sources), addNotifier(mgr, o))
}

// newMeter is nil without a server: then metrics are unavailable, and pause.
func newMeter(server string) (rollout.Meter, error) {
	if server == "" {
		return nil, nil
	}
	return prom.New(prom.Options{URL: server})
}

// fluxMetrics registers the collectors of fluxcd/pkg/runtime, once for each process.
func fluxMetrics(mgr manager.Manager) (fluxcontroller.Metrics, error) {
	recorder := fluxmetrics.NewRecorder()
	for _, collector := range recorder.Collectors() {
		var there prometheus.AlreadyRegisteredError
		if err := metrics.Registry.Register(collector); err != nil && !errors.As(err, &there) {
			return fluxcontroller.Metrics{}, fmt.Errorf("metrics: %w", err)
		}
	}
	return fluxcontroller.NewMetrics(mgr, recorder, reconciler.Finalizer), nil
}

// connect makes the agent ask the server for reverts and listen for its nudges.
func connect(mgr manager.Manager, o AgentOptions, options *reconciler.ApplicationOptions, sources *reconciler.SourceReconciler) error {
	server, err := report.New(report.Options{Server: o.Server, Cluster: o.Cluster, HTTP: o.HTTP})
	if err != nil {
		return err
	}
	options.Reverter = viaServer{server}
	options.Sign = func(request *v1alpha1.RevertRequest) error { return undo.Sign(o.Key, request) }
	reports := manager.RunnableFunc(func(ctx context.Context) error {
		reportChanges(ctx, mgr.GetClient(), o.Namespace, server)
		return nil
	})
	rollouts := manager.RunnableFunc(func(ctx context.Context) error {
		reportRollouts(ctx, mgr.GetClient(), o.Cluster, server, o.Key, o.Now)
		return nil
	})
	return errors.Join(mgr.Add(reports), mgr.Add(rollouts), mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		server.Nudges(ctx, func() { sources.Nudge(ctx, "") }, func(nudge report.Nudge) { sources.Nudge(ctx, nudge.URL) })
		return nil
	})))
}

// viaServer is the Reverter of an agent that may only read the repository.
type viaServer struct{ server *report.Client }

func (v viaServer) Revert(ctx context.Context, _ reconciler.Repository, request v1alpha1.RevertRequest) (reconciler.RevertAnswer, error) {
	answer, err := v.server.Revert(ctx, request)
	return reconciler.RevertAnswer{Commit: answer.Commit, Branch: answer.Branch, Why: answer.Why, Superseded: answer.Superseded}, err
}
