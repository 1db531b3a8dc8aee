package cluster_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Under the race detector this also shows that parallel pushes and pulls of new repositories are in turn.
func TestRegistryTakesParallelPushesAndPulls(t *testing.T) {
	r := registry(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			ref, err := name.NewTag(fmt.Sprintf("%s/repo-%d:%d", r.Host(), i%2, i))
			if err != nil {
				t.Error(err)
				return
			}
			img, err := random.Image(1024, 4)
			if err != nil {
				t.Error(err)
				return
			}
			if err := remote.Write(ref, img); err != nil {
				t.Error(err)
				return
			}
			got, err := remote.Image(ref)
			if err != nil {
				t.Error(err)
				return
			}
			if want, err := img.Digest(); err != nil || digest(t, got.Digest) != want.String() {
				t.Errorf("%s: pulled another image, %v", ref, err)
			}
		})
	}
	all.Wait()
}

func digest[T fmt.Stringer](t *testing.T, of func() (T, error)) string {
	d, err := of()
	if err != nil {
		t.Error(err)
	}
	return d.String()
}
