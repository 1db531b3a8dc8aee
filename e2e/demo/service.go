package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/slipway-cd/slipway/e2e/world"
)

// service asks the production service again and again, through the API server's proxy,
// while a bad version comes and goes. Simulated pods answer nobody, so there it asks nothing.
type service struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	asked, failed int
	last          error
}

func watchService(ctx context.Context, w *world.World) *service {
	ctx, cancel := context.WithCancel(ctx)
	s := &service{cancel: cancel}
	if simulated, _ := w.Cluster.Simulated(); simulated {
		return s
	}
	kube, err := kubernetes.NewForConfig(w.Cluster.RESTConfig())
	if err != nil {
		s.last, s.failed = err, 1
		return s
	}
	s.done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := kube.CoreV1().Services("shop-production").ProxyGet("http", "shop", "80", "/", nil).DoRaw(ctx)
			if ctx.Err() != nil {
				return
			}
			s.asked++
			if err != nil {
				s.failed++
				s.last = err
			}
		}
	})
	return s
}

func (s *service) stop() {
	s.cancel()
	s.done.Wait()
}

// verdict fails if a single answer was missing.
func (s *service) verdict(t *timeline) error {
	s.stop()
	if s.asked == 0 && s.failed == 0 {
		return nil
	}
	t.say("meanwhile the service was asked %d times; %d answers failed", s.asked, s.failed)
	if s.failed > 0 {
		return fmt.Errorf("%d of %d requests to the service failed, the last with: %w", s.failed, s.asked, s.last)
	}
	return nil
}
