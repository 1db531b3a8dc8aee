package oci

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pushable is an image or an index of several.
type pushable interface {
	remote.Taggable
	Digest() (v1.Hash, error)
}

// push sends what the registry does not have and returns the digest, and how many blobs went over the wire.
func (r *Registry) push(ctx context.Context, o order, images []v1.Image) (digest string, sent int, err error) {
	var whole pushable = images[0]
	if len(images) > 1 {
		whole = indexOf(images, o.platforms)
	}
	hash, err := whole.Digest()
	if err != nil {
		return "", 0, r.failed("assemble", o.Repository, o.repository.RegistryStr(), err)
	}
	counter := &uploads{next: r.client}
	pusher, err := remote.NewPusher(append(r.remote(ctx), remote.WithTransport(counter))...)
	if err != nil {
		return "", 0, r.failed("push", o.Repository, o.repository.RegistryStr(), err)
	}
	if err := pusher.Push(ctx, o.repository.Digest(hash.String()), whole); err != nil {
		return "", 0, r.failed("push", o.Repository+"@"+hash.String(), o.repository.RegistryStr(), err)
	}
	for _, tag := range o.tags {
		if err := pusher.Put(ctx, tag, whole); err != nil {
			return "", 0, r.failed("tag", tag.String(), o.repository.RegistryStr(), err)
		}
	}
	return hash.String(), int(counter.done.Load()), nil
}

// indexOf keeps the order of the platforms as they were asked for.
func indexOf(images []v1.Image, platforms []v1.Platform) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, image := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platforms[i]}})
	}
	return index
}

// uploads counts the blobs that a registry took.
type uploads struct {
	next http.RoundTripper
	done atomic.Int64
}

func (u *uploads) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := u.next.RoundTrip(request)
	if err == nil && request.Method == http.MethodPut && answer.StatusCode == http.StatusCreated && strings.Contains(request.URL.Path, "/blobs/uploads/") {
		u.done.Add(1)
	}
	return answer, err
}
