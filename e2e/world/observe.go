package world

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Application reads one.
func (w *World) Application(ctx context.Context, name string) (*v1alpha1.Application, error) {
	var app v1alpha1.Application
	err := w.Kube.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: name}, &app)
	return &app, err
}

// Ready fails unless the Application is Ready with what the commit holds.
// An empty commit stands for any.
func (w *World) Ready(ctx context.Context, name string, commit gitsource.ObjectID) error {
	app, err := w.Application(ctx, name)
	if err != nil {
		return err
	}
	if err := w.seen(ctx, commit); err != nil {
		return err
	}
	ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return fmt.Errorf("%s has no condition Ready yet", name)
	case ready.Status != metav1.ConditionTrue:
		return fmt.Errorf("%s is not ready: %s: %s", name, ready.Reason, ready.Message)
	case app.Status.ObservedGeneration != app.Generation:
		return fmt.Errorf("%s has a newer spec than its status", name)
	}
	return nil
}

// seen fails unless the GitSource is at commit.
func (w *World) seen(ctx context.Context, commit gitsource.ObjectID) error {
	if commit == "" {
		return nil
	}
	var source v1alpha1.GitSource
	if err := w.Kube.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: "fleet"}, &source); err != nil {
		return err
	}
	if !strings.HasSuffix(source.Status.Revision, string(commit)) {
		return fmt.Errorf("the agent has not seen %s yet, but %s", commit.Short(), source.Status.Revision)
	}
	return nil
}

// Condition fails unless a condition of the Application has a reason.
func (w *World) Condition(ctx context.Context, name, condition, reason string) error {
	app, err := w.Application(ctx, name)
	if err != nil {
		return err
	}
	found := meta.FindStatusCondition(app.Status.Conditions, condition)
	if found == nil || found.Reason != reason {
		return fmt.Errorf("%s: condition %s is %+v, want reason %s", name, condition, found, reason)
	}
	return nil
}

// WaitReady waits until all these Applications are Ready at the commit.
func (w *World) WaitReady(ctx context.Context, atMost time.Duration, commit gitsource.ObjectID, names ...string) error {
	return Eventually(ctx, atMost, func() error {
		for _, name := range names {
			if err := w.Ready(ctx, name, commit); err != nil {
				return err
			}
		}
		return nil
	})
}

// Deployment fails unless all replicas of a Deployment are available and run the image.
func (w *World) Deployment(ctx context.Context, namespace, name, image string) error {
	var deployment appsv1.Deployment
	if err := w.Kube.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &deployment); err != nil {
		return err
	}
	status := deployment.Status
	replicas := int32(1)
	if deployment.Spec.Replicas != nil {
		replicas = *deployment.Spec.Replicas
	}
	switch got := deployment.Spec.Template.Spec.Containers[0].Image; {
	case got != image:
		return fmt.Errorf("deployment %s/%s asks for %s, want %s", namespace, name, got, image)
	case status.ObservedGeneration != deployment.Generation:
		return fmt.Errorf("deployment %s/%s is not observed yet", namespace, name)
	case status.AvailableReplicas != replicas || status.UpdatedReplicas != replicas || status.Replicas != replicas:
		return fmt.Errorf("deployment %s/%s: %d of %d replicas available, %d updated", namespace, name, status.AvailableReplicas, replicas, status.UpdatedReplicas)
	}
	return nil
}
