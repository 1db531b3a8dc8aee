// Package owned reads from a cluster what Applications own and what came of it: the objects of their Inventories, what
// controllers made of those, and the events that tell of both. It needs no more than a person's rights to read, and what
// may not be read is shown as unknown, never as gone.
package owned

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/apply"
)

// The words for health.
const (
	Healthy     = "healthy"
	Progressing = "progressing"
	Failed      = "failed"
	Suspended   = "suspended"
	Missing     = "missing" // in the Inventory, not in the cluster
	Unknown     = "unknown"
)

// Node is an Application, an object that it owns, or what a controller made of one.
type Node struct {
	Group     string     `json:"group,omitempty"`
	Kind      string     `json:"kind"`
	Namespace string     `json:"namespace,omitempty"`
	Name      string     `json:"name"`
	Health    string     `json:"health"`
	Message   string     `json:"message,omitempty"`
	Created   *time.Time `json:"created,omitempty"`
	Revision  string     `json:"revision,omitempty"` // of an Application: what is applied
	Children  []*Node    `json:"children,omitempty"`

	uid    types.UID
	owners []types.UID
	idle   bool // a ReplicaSet of an earlier version
}

// Reader reads the Applications of a namespace.
type Reader struct {
	Kube      client.WithWatch
	Namespace string // of the Applications
}

// parallel bounds the requests that are under way at a time.
const parallel = 20

// Trees returns the Applications that are named, all if none is, with what they own. An Application that another one of
// them owns stands below it.
func (r Reader) Trees(ctx context.Context, names ...string) ([]*Node, error) {
	state, err := r.read(ctx, names)
	if err != nil {
		return nil, err
	}
	b := &building{r: r, state: state, nodes: map[types.UID]*Node{}, apps: map[string]*Node{}}
	if err := b.objects(ctx); err != nil {
		return nil, err
	}
	if err := b.children(ctx); err != nil {
		return nil, err
	}
	return b.roots(names), nil
}

// state is what the agent has written about the Applications that count.
type state struct {
	apps    map[string]*v1alpha1.Application
	entries map[string][]v1alpha1.InventoryEntry
}

// read returns the named Applications and those that they own.
func (r Reader) read(ctx context.Context, names []string) (state, error) {
	var apps v1alpha1.ApplicationList
	if err := r.Kube.List(ctx, &apps, client.InNamespace(r.Namespace)); err != nil {
		return state{}, fmt.Errorf("applications of namespace %s: %w (is Slipway installed here? see 'slipway install --help')", r.Namespace, err)
	}
	var shards v1alpha1.InventoryList
	if err := r.Kube.List(ctx, &shards, client.InNamespace(r.Namespace)); err != nil {
		return state{}, fmt.Errorf("inventories of namespace %s: %w", r.Namespace, err)
	}
	all := state{apps: map[string]*v1alpha1.Application{}, entries: map[string][]v1alpha1.InventoryEntry{}}
	for i := range apps.Items {
		all.apps[apps.Items[i].Name] = &apps.Items[i]
	}
	for _, shard := range shards.Items {
		all.entries[shard.Spec.Application] = append(all.entries[shard.Spec.Application], shard.Spec.Entries...)
	}
	if len(names) == 0 {
		return all, nil
	}
	chosen := state{apps: map[string]*v1alpha1.Application{}, entries: map[string][]v1alpha1.InventoryEntry{}}
	for _, name := range names {
		if all.apps[name] == nil {
			return state{}, fmt.Errorf("application %s: there is none in namespace %s", name, r.Namespace)
		}
		r.choose(name, all, chosen)
	}
	return chosen, nil
}

// choose puts an Application into chosen, and those that it owns.
func (r Reader) choose(name string, all, chosen state) {
	if all.apps[name] == nil || chosen.apps[name] != nil {
		return
	}
	chosen.apps[name], chosen.entries[name] = all.apps[name], all.entries[name]
	for _, entry := range all.entries[name] {
		if r.isApplication(entry) {
			r.choose(entry.Name, all, chosen)
		}
	}
}

func (r Reader) isApplication(entry v1alpha1.InventoryEntry) bool {
	return entry.Group == v1alpha1.Group && entry.Kind == "Application" && entry.Namespace == r.Namespace
}

// building is one tree on its way.
type building struct {
	r     Reader
	state state
	mu    sync.Mutex
	nodes map[types.UID]*Node
	apps  map[string]*Node
}

// objects reads what the Inventories name.
func (b *building) objects(ctx context.Context) error {
	for name, app := range b.state.apps {
		b.apps[name] = applicationNode(app)
	}
	var reading sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for name := range b.state.apps {
		parent := b.apps[name]
		for _, entry := range b.state.entries[name] {
			if b.r.isApplication(entry) && b.apps[entry.Name] != nil {
				b.mu.Lock()
				parent.Children = append(parent.Children, b.apps[entry.Name])
				b.mu.Unlock()
				continue
			}
			slots <- struct{}{}
			reading.Go(func() {
				defer func() { <-slots }()
				node := b.r.object(ctx, entry)
				b.mu.Lock()
				defer b.mu.Unlock()
				parent.Children = append(parent.Children, node)
				if node.uid != "" {
					b.nodes[node.uid] = node
				}
			})
		}
	}
	reading.Wait()
	return ctx.Err()
}

// object reads one object. Of Secrets only the metadata leaves the server.
func (r Reader) object(ctx context.Context, entry v1alpha1.InventoryEntry) *Node {
	kind := schema.GroupVersionKind{Group: entry.Group, Version: entry.Version, Kind: entry.Kind}
	key := client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}
	node := &Node{Group: entry.Group, Kind: entry.Kind, Namespace: entry.Namespace, Name: entry.Name, Health: Unknown}
	var err error
	if entry.Group == "" && entry.Kind == "Secret" {
		part := &metav1.PartialObjectMetadata{}
		part.SetGroupVersionKind(kind)
		if err = r.Kube.Get(ctx, key, part); err == nil {
			node.Health = Healthy
			node.known(part)
		}
	} else {
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(kind)
		if err = r.Kube.Get(ctx, key, object); err == nil {
			node.judge(object)
		}
	}
	switch {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		node.Health, node.Message = Missing, "it is not in the cluster"
	case err != nil:
		node.Message = err.Error()
	}
	return node
}

func (n *Node) known(object metav1.Object) {
	created := object.GetCreationTimestamp().UTC()
	n.Created, n.uid = &created, object.GetUID()
	for _, owner := range object.GetOwnerReferences() {
		n.owners = append(n.owners, owner.UID)
	}
}

func (n *Node) judge(object *unstructured.Unstructured) {
	n.known(object)
	health := apply.HealthOf(object)
	n.Health, n.Message = health.State.String(), health.Message
	switch object.GetKind() {
	case "Pod":
		if trouble := podTrouble(object); trouble != "" {
			n.Message = trouble
		}
	case "ReplicaSet":
		want, _, _ := unstructured.NestedInt64(object.Object, "spec", "replicas")
		ready, _, _ := unstructured.NestedInt64(object.Object, "status", "readyReplicas")
		n.Message, n.idle = fmt.Sprintf("%d of %d pods ready", ready, want), want == 0
		if ready < want {
			n.Health = Progressing
		}
	}
}

// podTrouble says what containers wait for and how often they were started again; empty if there is nothing to say.
func podTrouble(pod *unstructured.Unstructured) string {
	var said []string
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		statuses, _, _ := unstructured.NestedSlice(pod.Object, "status", field)
		for _, item := range statuses {
			container, _ := item.(map[string]any)
			reason, _, _ := unstructured.NestedString(container, "state", "waiting", "reason")
			message, _, _ := unstructured.NestedString(container, "state", "waiting", "message")
			restarts, _, _ := unstructured.NestedInt64(container, "restartCount")
			var parts []string
			if reason != "" && reason != "ContainerCreating" && reason != "PodInitializing" {
				parts = append(parts, strings.TrimSuffix(reason+": "+message, ": "))
			}
			if restarts > 0 {
				parts = append(parts, fmt.Sprintf("started again %d times", restarts))
			}
			if len(parts) > 0 {
				said = append(said, fmt.Sprint(container["name"], ": ", strings.Join(parts, "; ")))
			}
		}
	}
	return strings.Join(said, ", ")
}

func applicationNode(app *v1alpha1.Application) *Node {
	node := &Node{
		Group: v1alpha1.Group, Kind: "Application", Namespace: app.Namespace, Name: app.Name,
		Health: Unknown, Message: "the agent has not looked at it yet",
	}
	node.known(app)
	if app.Status.Applied != nil {
		node.Revision = app.Status.Applied.Revision
	}
	ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return node
	}
	node.Message = ready.Reason + ": " + ready.Message
	switch {
	case ready.Reason == v1alpha1.ReasonPaused || ready.Reason == v1alpha1.ReasonSuspended:
		node.Health = Suspended
	case ready.Status == metav1.ConditionTrue:
		node.Health = Healthy
	case ready.Status == metav1.ConditionUnknown:
		node.Health = Progressing
	default:
		node.Health = Failed
	}
	return node
}

// children reads what controllers made of the objects, in the namespaces where there are workloads.
func (b *building) children(ctx context.Context) error {
	namespaces := map[string]bool{}
	for _, entries := range b.state.entries {
		for _, entry := range entries {
			if entry.Namespace != "" && (entry.Group == "apps" || entry.Group == "batch") {
				namespaces[entry.Namespace] = true
			}
		}
	}
	made := map[types.UID]*Node{}
	for namespace := range namespaces {
		for _, kind := range []schema.GroupVersionKind{
			{Group: "apps", Version: "v1", Kind: "ReplicaSet"}, {Group: "batch", Version: "v1", Kind: "Job"}, {Version: "v1", Kind: "Pod"},
		} {
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(kind)
			if err := b.r.Kube.List(ctx, list, client.InNamespace(namespace)); err != nil {
				return fmt.Errorf("%ss of namespace %s: %w", kind.Kind, namespace, err)
			}
			for i := range list.Items {
				object := &list.Items[i]
				if b.nodes[object.GetUID()] != nil {
					continue // the Inventory names it
				}
				node := &Node{Group: kind.Group, Kind: kind.Kind, Namespace: namespace, Name: object.GetName()}
				node.judge(object)
				made[node.uid] = node
			}
		}
	}
	b.link(made)
	return nil
}

// link hangs what controllers made below what they made it of, and what an owned object owns below that.
func (b *building) link(made map[types.UID]*Node) {
	for _, node := range made {
		if at := slices.IndexFunc(node.owners, func(o types.UID) bool { return b.nodes[o] != nil || made[o] != nil }); at >= 0 {
			owner := b.nodes[node.owners[at]]
			if owner == nil {
				owner = made[node.owners[at]]
			}
			owner.Children = append(owner.Children, node)
		}
	}
	for _, app := range b.apps {
		app.Children = slices.DeleteFunc(app.Children, func(node *Node) bool {
			at := slices.IndexFunc(node.owners, func(o types.UID) bool { return b.nodes[o] != nil })
			if node.Kind == "Application" || at < 0 {
				return false
			}
			owner := b.nodes[node.owners[at]]
			owner.Children = append(owner.Children, node)
			return true
		})
	}
}

// roots returns what stands at the top, in order.
func (b *building) roots(names []string) []*Node {
	below := map[*Node]bool{}
	for _, app := range b.apps {
		for _, child := range app.Children {
			if child != app {
				below[child] = true
			}
		}
	}
	roots := []*Node{}
	for name, app := range b.apps {
		if slices.Contains(names, name) || len(names) == 0 && !below[app] {
			roots = append(roots, app)
		}
	}
	seen := map[*Node]bool{}
	for _, root := range roots {
		tidy(root, seen)
	}
	slices.SortFunc(roots, compare)
	return roots
}

// tidy sorts what is below a node, and takes out ReplicaSets of earlier versions and what stands above itself.
func tidy(node *Node, above map[*Node]bool) {
	above[node] = true
	defer delete(above, node)
	node.Children = slices.DeleteFunc(node.Children, func(child *Node) bool {
		return above[child] || child.idle && len(child.Children) == 0
	})
	slices.SortFunc(node.Children, compare)
	for _, child := range node.Children {
		tidy(child, above)
	}
}

// compare orders what runs after what it uses, Applications last.
func compare(a, b *Node) int {
	rank := func(n *Node) string {
		switch {
		case n.Kind == "Application":
			return "2"
		case n.Group == "apps" || n.Group == "batch" || n.Group == v1alpha1.Group || n.Kind == "Pod":
			return "1"
		}
		return "0"
	}
	if c := strings.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	return a.Ref().Compare(b.Ref())
}

// Ref names the object.
func (n *Node) Ref() manifests.Ref {
	return manifests.Ref{Group: n.Group, Kind: n.Kind, Namespace: n.Namespace, Name: n.Name}
}
