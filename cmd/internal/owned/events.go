package owned

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
)

// Event is what the cluster told about an Application, an object that it owns or what was made of one.
type Event struct {
	At          time.Time `json:"at"` // of the last time
	Application string    `json:"application"`
	Kind        string    `json:"kind"`
	Namespace   string    `json:"namespace,omitempty"`
	Name        string    `json:"name"`
	Type        string    `json:"type"` // Normal or Warning
	Reason      string    `json:"reason"`
	Message     string    `json:"message"`
	Count       int32     `json:"count"`

	uid     types.UID
	version string
}

// place is where an event says that it happened.
type place struct{ kind, namespace, name string }

// scope tells which events count.
type scope struct {
	owner      map[place]string // the Application
	namespaces []string
}

func (r Reader) scope(ctx context.Context, names []string) (scope, error) {
	state, err := r.read(ctx, names)
	if err != nil {
		return scope{}, err
	}
	s := scope{owner: map[place]string{}}
	namespaces := map[string]bool{r.Namespace: true}
	for name, entries := range state.entries {
		for _, entry := range entries {
			s.owner[place{entry.Kind, entry.Namespace, entry.Name}] = name
			if entry.Namespace != "" {
				namespaces[entry.Namespace] = true
			} else {
				namespaces["default"] = true // where events of objects without a namespace are
			}
		}
	}
	for name, app := range state.apps {
		s.owner[place{"Application", r.Namespace, name}] = name
		s.owner[place{cmp.Or(app.Spec.SourceRef.Kind, "GitSource"), r.Namespace, app.Spec.SourceRef.Name}] = name
	}
	for namespace := range namespaces {
		s.namespaces = append(s.namespaces, namespace)
	}
	slices.Sort(s.namespaces)
	return s, nil
}

// application returns whose event it is; empty if nobody's here. What controllers made is known by the name that they
// gave it, so that it is known also when it is gone.
func (s scope) application(at place) string {
	if owner := s.owner[at]; owner != "" {
		return owner
	}
	once := func(kinds ...string) string {
		for _, kind := range kinds {
			if owner := s.owner[place{kind, at.namespace, parent(at.name)}]; owner != "" {
				return owner
			}
		}
		return ""
	}
	switch at.kind {
	case "ReplicaSet":
		return once("Deployment")
	case "Job":
		return once("CronJob")
	case "Pod":
		if owner := once("ReplicaSet", "Job", "DaemonSet", "StatefulSet"); owner != "" {
			return owner
		}
		at.name = parent(at.name)
		return once("Deployment", "CronJob")
	}
	return ""
}

// parent takes off what controllers put behind a name.
func parent(name string) string {
	if at := strings.LastIndexByte(name, '-'); at > 0 {
		return name[:at]
	}
	return ""
}

// of returns the event in our words; false if it is nobody's here.
func (s scope) of(event *corev1.Event) (Event, bool) {
	at := event.InvolvedObject
	app := s.application(place{at.Kind, at.Namespace, at.Name})
	if app == "" {
		return Event{}, false
	}
	last := event.LastTimestamp.Time
	if last.IsZero() {
		last = event.EventTime.Time
	}
	if event.Series != nil {
		last = event.Series.LastObservedTime.Time
	}
	if last.IsZero() {
		last = event.CreationTimestamp.Time
	}
	count := max(event.Count, 1)
	if event.Series != nil {
		count = max(count, event.Series.Count)
	}
	return Event{
		At: last.UTC(), Application: app, Kind: at.Kind, Namespace: at.Namespace, Name: at.Name,
		Type: event.Type, Reason: event.Reason, Message: event.Message, Count: count, uid: event.UID, version: event.ResourceVersion,
	}, true
}

// Events returns what the cluster still knows, the newest last.
func (r Reader) Events(ctx context.Context, names ...string) ([]Event, error) {
	s, err := r.scope(ctx, names)
	if err != nil {
		return nil, err
	}
	all := []Event{}
	for _, namespace := range s.namespaces {
		some, _, err := r.list(ctx, s, namespace)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	sortEvents(all)
	return all, nil
}

func sortEvents(events []Event) {
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func (r Reader) list(ctx context.Context, s scope, namespace string) ([]Event, string, error) {
	var list corev1.EventList
	if err := r.Kube.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, "", fmt.Errorf("events of namespace %s: %w", namespace, err)
	}
	var some []Event
	for i := range list.Items {
		if event, ours := s.of(&list.Items[i]); ours {
			some = append(some, event)
		}
	}
	return some, list.ResourceVersion, nil
}

// lookAgain is how often Follow asks what the Applications own now.
const lookAgain = 5 * time.Second

// Follow calls f with what the cluster knows, the newest last, and with what it tells from then on, until ctx ends, which is
// no error, or f fails. It is never called twice at the same time.
func (r Reader) Follow(ctx context.Context, names []string, f func(Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	following := &following{r: r, f: f, seen: map[types.UID]string{}, watched: map[string]bool{}, fail: cancel}
	defer following.watching.Wait()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if err := following.look(ctx, names); err != nil && ctx.Err() == nil {
			cancel(err)
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); cause != ctx.Err() { //nolint:errorlint // it is the very same value unless fail was called
				return cause
			}
			return nil
		case <-tick.C:
		}
	}
}

// following is one call of Follow.
type following struct {
	r        Reader
	f        func(Event) error
	fail     context.CancelCauseFunc
	watching sync.WaitGroup
	watched  map[string]bool

	mu        sync.Mutex
	scope     scope
	seen      map[types.UID]string
	strangers []*corev1.Event // that may prove to be of what an Application owns as soon as its Inventory says so
}

// What is remembered of events that are nobody's here.
const (
	maxStrangers = 500
	strangerFor  = time.Minute
)

// look finds out what is owned now, and watches where nobody watches yet.
func (w *following) look(ctx context.Context, names []string) error {
	s, err := w.r.scope(ctx, names)
	if err != nil {
		return err
	}
	all := w.rescope(s)
	from := map[string]string{}
	for _, namespace := range s.namespaces {
		if w.watched[namespace] {
			continue
		}
		some, version, err := w.r.list(ctx, s, namespace)
		if err != nil {
			return err
		}
		all = append(all, some...)
		from[namespace] = version
	}
	sortEvents(all)
	for _, event := range all {
		w.tell(event)
	}
	for namespace, version := range from {
		w.watched[namespace] = true
		w.watching.Go(func() { w.watch(ctx, namespace, version) })
	}
	return nil
}

// rescope takes the new scope, and returns what it makes ours.
func (w *following) rescope(s scope) []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scope = s
	var ours []Event
	w.strangers = slices.DeleteFunc(w.strangers, func(event *corev1.Event) bool {
		told, is := s.of(event)
		if is {
			ours = append(ours, told)
		}
		return is || time.Since(event.CreationTimestamp.Time) > strangerFor && time.Since(event.LastTimestamp.Time) > strangerFor
	})
	return ours
}

// tell calls f once for each state of an event.
func (w *following) tell(event Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[event.uid] == event.version {
		return
	}
	w.seen[event.uid] = event.version
	if err := w.f(event); err != nil {
		w.fail(err)
	}
}

// watch tells what comes in one namespace. A watch that ends is begun again with what happened meanwhile.
func (w *following) watch(ctx context.Context, namespace, version string) {
	for ctx.Err() == nil {
		if version != "" {
			w.stream(ctx, namespace, version)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		w.mu.Lock()
		s := w.scope
		w.mu.Unlock()
		some, now, err := w.r.list(ctx, s, namespace)
		if err != nil {
			version = "" // the API server is away: try again
			continue
		}
		sortEvents(some)
		for _, event := range some {
			w.tell(event)
		}
		version = now
	}
}

func (w *following) stream(ctx context.Context, namespace, version string) {
	options := &client.ListOptions{Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: version}}
	watching, err := w.r.Kube.Watch(ctx, &corev1.EventList{}, options)
	if err != nil {
		return
	}
	defer watching.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case change, open := <-watching.ResultChan():
			if !open {
				return
			}
			event, is := change.Object.(*corev1.Event)
			if !is {
				return // the version is too old
			}
			w.mu.Lock()
			told, ours := w.scope.of(event)
			if !ours && len(w.strangers) < maxStrangers {
				w.strangers = append(w.strangers, event)
			}
			w.mu.Unlock()
			if ours {
				w.tell(told)
			}
		}
	}
}

// Ref names what the event is about, without the group, which events often lack.
func (e Event) Ref() manifests.Ref {
	return manifests.Ref{Kind: e.Kind, Namespace: e.Namespace, Name: e.Name}
}
