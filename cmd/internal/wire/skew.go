package wire

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// cacheOfOlder makes the cache of an agent that may be newer than the definitions of its cluster. The cache asks for the scope of
// each kind that it is told of, and would not come into being if one is not served. Kinds that earlier versions had not are
// let through: their loops wait until the definition comes, and everything else works meanwhile.
func cacheOfOlder(config *rest.Config, o cache.Options) (cache.Cache, error) {
	scopes := &scopesOfLater{RESTMapper: o.Mapper}
	o.Mapper = scopes
	c, err := cache.New(config, o)
	scopes.made = true // from now on, what is not served is not served
	return c, err
}

// scopesOfLater knows the scope of kinds that earlier versions had not, while the cache is made.
type scopesOfLater struct {
	meta.RESTMapper
	made bool // nobody asks before cache.New returns, and nobody else writes
}

// RESTMapping answers as the API server does, or with no more than kind and scope.
func (s *scopesOfLater) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	mapping, err := s.RESTMapper.RESTMapping(kind, versions...)
	if !s.made && meta.IsNoMatchError(err) && later(kind) {
		return &meta.RESTMapping{GroupVersionKind: kind.WithVersion(v1alpha1.GroupVersion().Version), Scope: meta.RESTScopeNamespace}, nil
	}
	return mapping, err
}

// later says whether there were versions without a kind.
func later(kind schema.GroupKind) bool {
	return kind.Group == v1alpha1.Group && (kind.Kind == "ApplicationSet" || kind.Kind == "Notification")
}
