package apply

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/slipway-cd/slipway/manifests"
)

// Options of an Applier. Zero values take the default in brackets.
type Options struct {
	Config   *rest.Config  // required; copied
	Manager  string        // field manager [manifests.FieldManager]
	Parallel int           // requests at a time within one Apply or Observe [20]
	Timeout  time.Duration // of one request [30s]
	GateWait time.Duration // for CRDs to be established, namespaces active, forced deletions done [60s]
	Refresh  time.Duration // least time between two discoveries that look for a missing kind [5s]
	SyncWait time.Duration // how long Observe waits for watches that are starting [10s]
}

// userAgent is what the API server's audit log shows.
const userAgent = "slipway-agent"

// Applier carries out Plans on one cluster. It is safe for concurrent use.
type Applier struct {
	options  Options
	mapper   *mapper
	metadata metadata.Interface // most requests: answers carry no content
	dynamic  dynamic.Interface
	rest     rest.Interface
	watcher  atomic.Pointer[Watcher]
}

// New checks the options. It sends nothing: the first use discovers the served kinds.
func New(o Options) (*Applier, error) {
	if o.Config == nil {
		return nil, errors.New("apply: Options.Config is required")
	}
	if o.Parallel < 0 || o.Timeout < 0 || o.GateWait < 0 || o.Refresh < 0 || o.SyncWait < 0 {
		return nil, errors.New("apply: options must not be negative")
	}
	if o.Manager == "" {
		o.Manager = manifests.FieldManager
	}
	o.Parallel = orDefault(o.Parallel, 20)
	o.Timeout = orDefault(o.Timeout, 30*time.Second)
	o.GateWait = orDefault(o.GateWait, time.Minute)
	o.Refresh = orDefault(o.Refresh, 5*time.Second)
	o.SyncWait = orDefault(o.SyncWait, 10*time.Second)
	o.Config = rest.CopyConfig(o.Config)
	o.Config.UserAgent = userAgent
	o.Config.QPS = -1 // Parallel bounds us, and the server's priority and fairness
	o.Config.Timeout = 0
	o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper { return impersonating{next} })
	client, err := rest.HTTPClientFor(o.Config)
	if err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	return connect(o, client)
}

// connect makes all clients on one transport.
func connect(o Options, client *http.Client) (*Applier, error) {
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(o.Config, client)
	if err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	meta, err := metadata.NewForConfigAndClient(o.Config, client)
	if err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	whole, err := dynamic.NewForConfigAndClient(o.Config, client)
	if err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	raw := rest.CopyConfig(o.Config)
	raw.GroupVersion = &schema.GroupVersion{Version: "v1"}
	raw.APIPath = "/api"
	raw.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	plain, err := rest.RESTClientForConfigAndClient(raw, client)
	if err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	return &Applier{
		options:  o,
		mapper:   &mapper{discovery: disco, refresh: o.Refresh},
		metadata: meta,
		dynamic:  whole,
		rest:     plain,
	}, nil
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// resource is where the objects of one kind are read and written.
type resource struct {
	gvr        schema.GroupVersionResource
	namespaced bool
}

// metadataOf returns the metadata client of the place of ref.
func (a *Applier) metadataOf(r resource, ref manifests.Ref) metadata.ResourceInterface {
	if r.namespaced {
		return a.metadata.Resource(r.gvr).Namespace(ref.Namespace)
	}
	return a.metadata.Resource(r.gvr)
}

// wholeOf returns the client of whole objects of the place of ref.
func (a *Applier) wholeOf(r resource, ref manifests.Ref) dynamic.ResourceInterface {
	if r.namespaced {
		return a.dynamic.Resource(r.gvr).Namespace(ref.Namespace)
	}
	return a.dynamic.Resource(r.gvr)
}

// applyOptions are those of every server-side apply: what Git says wins.
func (a *Applier) applyOptions() metav1.PatchOptions {
	force := true
	return metav1.PatchOptions{FieldManager: a.options.Manager, Force: &force}
}
