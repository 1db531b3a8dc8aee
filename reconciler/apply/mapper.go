package apply

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"
)

// mapper finds the resource of a kind. It discovers once, and again only when a
// kind is missing, at most every refresh: knowing a kind costs no request.
type mapper struct {
	discovery discovery.DiscoveryInterface
	refresh   time.Duration

	refreshing sync.Mutex // held during a discovery, so that known kinds are never delayed by one
	mu         sync.Mutex
	known      meta.RESTMapper
	failed     map[string]error // groups that could not be discovered
	at         time.Time        // of the last discovery
}

// find returns the resource of kind at version, or at the preferred version if
// version is empty. A meta.NoKindMatchError means that the kind is not served;
// any other error, that this is not known.
func (m *mapper) find(kind schema.GroupKind, version string) (resource, error) {
	r, err := m.lookup(kind, version)
	if !meta.IsNoMatchError(err) && !errors.Is(err, errNotDiscovered) {
		return r, err
	}
	if err := m.discover(); err != nil {
		return resource{}, fmt.Errorf("discovery: %w", err)
	}
	return m.lookup(kind, version)
}

// errNotDiscovered means that a kind is not known and why is not known either.
var errNotDiscovered = errors.New("kinds of the API group could not be discovered")

func (m *mapper) lookup(kind schema.GroupKind, version string) (resource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		return resource{}, errNotDiscovered
	}
	var versions []string
	if version != "" {
		versions = append(versions, version)
	}
	mapping, err := m.known.RESTMapping(kind, versions...)
	if err == nil {
		return resource{gvr: mapping.Resource, namespaced: mapping.Scope.Name() == meta.RESTScopeNameNamespace}, nil
	}
	if cause := m.failed[kind.Group]; cause != nil {
		return resource{}, fmt.Errorf("%w: %s: %w", errNotDiscovered, kind.Group, cause)
	}
	return resource{}, err
}

// expire lets the next missing kind be looked for at once.
func (m *mapper) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = time.Time{}
}

// discover asks the server for its kinds, unless that was done within refresh.
func (m *mapper) discover() error {
	m.refreshing.Lock()
	defer m.refreshing.Unlock()
	m.mu.Lock()
	recent := m.known != nil && time.Since(m.at) < m.refresh
	m.mu.Unlock()
	if recent {
		return nil
	}
	started := time.Now()
	groups, lists, err := m.discovery.ServerGroupsAndResources()
	failed := map[string]error{}
	var partial *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &partial) {
		for gv, cause := range partial.Groups {
			failed[gv.Group] = cause
		}
	} else if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known, m.failed, m.at = restmapper.NewDiscoveryRESTMapper(groupResources(groups, lists)), failed, started
	return nil
}

// groupResources sorts resource lists under their groups.
func groupResources(groups []*metav1.APIGroup, lists []*metav1.APIResourceList) []*restmapper.APIGroupResources {
	byVersion := map[string][]metav1.APIResource{}
	for _, list := range lists {
		byVersion[list.GroupVersion] = list.APIResources
	}
	var result []*restmapper.APIGroupResources
	for _, group := range groups {
		resources := &restmapper.APIGroupResources{Group: *group, VersionedResources: map[string][]metav1.APIResource{}}
		for _, version := range group.Versions {
			if served, is := byVersion[version.GroupVersion]; is {
				resources.VersionedResources[version.Version] = served
			}
		}
		result = append(result, resources)
	}
	return result
}
