package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler"
	"github.com/slipway-cd/slipway/rollout"
)

// annotationPolicy keeps the deletionPolicy that an Application had before uninstall, until it is put back.
const annotationPolicy = v1alpha1.Group + "/deletion-policy-before-uninstall"

// ofAgent says whether a finalizer is one that only an agent would release.
func ofAgent(finalizer string) bool {
	return slices.Contains([]string{reconciler.Finalizer, reconciler.SetFinalizer, rollout.Finalizer}, finalizer)
}

func uninstallCommand(g *globals) *cobra.Command {
	var confirmed, crds bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "uninstall --leave-workloads-unmanaged",
		Short: "Take the agent and its rights out of a cluster; what it has applied stays",
		Long: `Take the agent and its rights out of a cluster. What Applications have brought in stays and
runs on; nobody follows Git any more. Applications and Rollouts stay, too, so that a later
install goes on where this one ended; with --delete-crds they go with their definitions.

All Applications are told first to keep their hands off, and for the time being to leave their
objects when they go (deletionPolicy Orphan); then the agent goes, then its rights, and last
what only an agent could release. While a Rollout is under way, this is refused. The namespace stays with the
Secrets in it. Asking again goes on where it was interrupted.`,
		Example: `  slipway uninstall --leave-workloads-unmanaged
  slipway uninstall --leave-workloads-unmanaged --delete-crds`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !confirmed {
				return usage("uninstall needs --leave-workloads-unmanaged: what was applied stays as it is, and nobody heals or updates it")
			}
			kube, _, err := g.kube()
			if err != nil {
				return err
			}
			u := &uninstalling{kube: kube, namespace: g.namespace, crds: crds, timeout: timeout}
			err = u.run(cmd.Context())
			return errors.Join(err, g.print(map[string]any{"done": u.done}, func(w io.Writer) {
				for _, line := range u.done {
					fmt.Fprintln(w, line)
				}
			}))
		},
	}
	cmd.Flags().BoolVar(&confirmed, "leave-workloads-unmanaged", false, "yes: workloads stay, and nobody follows Git any more (required)")
	cmd.Flags().BoolVar(&crds, "delete-crds", false, "delete the definitions, and with them all Applications, Rollouts and sources of this cluster")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the agent to keep its hands off, and to end")
	return cmd
}

// uninstalling is one call of uninstall.
type uninstalling struct {
	kube      client.Client
	namespace string
	crds      bool
	timeout   time.Duration
	done      []string
}

func (u *uninstalling) run(ctx context.Context) error {
	objects, err := install.Agent(u.namespace)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		u.settled, u.handsOff, u.orphan,
		func(ctx context.Context) error { return u.remove(ctx, objects) },
		u.release, u.definitions,
	} {
		// An interrupted uninstall may have taken the definitions already.
		if err := step(ctx); err != nil && !meta.IsNoMatchError(err) {
			return err
		}
	}
	return nil
}

// settled refuses while a Rollout is between two versions: nobody would finish it.
func (u *uninstalling) settled(ctx context.Context) error {
	var rollouts v1alpha1.RolloutList
	if err := u.kube.List(ctx, &rollouts); err != nil {
		return fmt.Errorf("rollouts: %w", err)
	}
	for i := range rollouts.Items {
		if r := &rollouts.Items[i]; unfinished(r) {
			return fmt.Errorf("rollout %s/%s: is %s, and nobody would finish it (wait until it is done, or revert the commit)", r.Namespace, r.Name, r.Status.Phase)
		}
	}
	return nil
}

// unfinished says that traffic or pods are between two versions; one that is Paused may have a canary for days.
func unfinished(r *v1alpha1.Rollout) bool {
	return r.Status.Phase == v1alpha1.PhaseProgressing || r.Status.Phase == v1alpha1.PhaseReturning || rollout.Beside(r)
}

func (u *uninstalling) applications(ctx context.Context) ([]v1alpha1.Application, error) {
	var apps v1alpha1.ApplicationList
	if err := u.kube.List(ctx, &apps, client.InNamespace(u.namespace)); err != nil {
		return nil, fmt.Errorf("applications of namespace %s: %w", u.namespace, err)
	}
	return apps.Items, nil
}

// handsOff pauses all Applications and waits until the agent says that it has seen it: else it would heal what is taken away.
func (u *uninstalling) handsOff(ctx context.Context) error {
	apps, err := u.applications(ctx)
	if err != nil {
		return err
	}
	pause, err := json.Marshal(reconciler.Pause{Until: time.Now().Add(longestSuspension), Reason: "slipway uninstall"})
	if err != nil {
		return err
	}
	for i := range apps {
		if err := annotate(ctx, u.kube, &apps[i], manifests.AnnotationPause, string(pause)); err != nil {
			return err
		}
	}
	err = u.eventually(ctx, func() error {
		apps, err := u.applications(ctx)
		if err != nil {
			return err
		}
		for i := range apps {
			ready := meta.FindStatusCondition(apps[i].Status.Conditions, v1alpha1.ConditionReady)
			if ready == nil || ready.Reason != v1alpha1.ReasonPaused && ready.Reason != v1alpha1.ReasonSuspended {
				return fmt.Errorf("application %s: the agent does not say that it keeps its hands off", apps[i].Name)
			}
		}
		return nil
	})
	if err == nil {
		u.did("the agent keeps its hands off")
		return nil
	}
	var deployment appsv1.Deployment
	lives := u.kube.Get(ctx, client.ObjectKey{Namespace: u.namespace, Name: install.AgentName}, &deployment)
	if lives == nil && deployment.Status.ReadyReplicas > 0 {
		return fmt.Errorf("%w (give it more time with --timeout, or look at its log)", err)
	}
	if client.IgnoreNotFound(lives) != nil {
		return fmt.Errorf("deployment %s: %w", install.AgentName, lives)
	}
	u.did("no agent answered within %s, and none is ready in the cluster; one that runs elsewhere loses its rights now", u.timeout)
	return nil
}

// orphan has objects stay when their Application goes, whoever deletes it while the agent is still there.
func (u *uninstalling) orphan(ctx context.Context) error {
	apps, err := u.applications(ctx)
	if err != nil {
		return err
	}
	for i := range apps {
		if apps[i].Spec.DeletionPolicy == v1alpha1.DeletionOrphan {
			continue
		}
		before := apps[i].DeepCopy()
		metav1.SetMetaDataAnnotation(&apps[i].ObjectMeta, annotationPolicy, string(apps[i].Spec.DeletionPolicy))
		apps[i].Spec.DeletionPolicy = v1alpha1.DeletionOrphan
		if err := u.kube.Patch(ctx, &apps[i], client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("application %s: deletionPolicy: %w", apps[i].Name, err)
		}
	}
	u.did("%d Applications leave their objects where they are", len(apps))
	return nil
}

// remove deletes the agent, waits until its pods are gone, and then deletes its rights.
func (u *uninstalling) remove(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		err := u.kube.Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationForeground))
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		err = u.eventually(ctx, func() error {
			err := u.kube.Get(ctx, client.ObjectKeyFromObject(object), object.DeepCopy())
			if err == nil {
				return fmt.Errorf("%s %s: is not gone within %s of its deletion (ask again)", object.GetKind(), object.GetName(), u.timeout)
			}
			return client.IgnoreNotFound(err)
		})
		if err != nil {
			return err
		}
		u.did("deleted %s %s", object.GetKind(), object.GetName())
	}
	return nil
}

// release takes the agent's finalizers away, since nobody else would, and puts back what was there before.
func (u *uninstalling) release(ctx context.Context) error {
	apps, err := u.applications(ctx)
	if err != nil {
		return err
	}
	var rollouts v1alpha1.RolloutList
	if err := u.kube.List(ctx, &rollouts); err != nil {
		return fmt.Errorf("rollouts: %w", err)
	}
	var sets v1alpha1.ApplicationSetList
	if err := u.kube.List(ctx, &sets, client.InNamespace(u.namespace)); err != nil && !meta.IsNoMatchError(err) { // older versions have none
		return fmt.Errorf("applicationsets of namespace %s: %w", u.namespace, err)
	}
	var all []client.Object
	for i := range apps {
		all = append(all, &apps[i])
	}
	for i := range sets.Items {
		all = append(all, &sets.Items[i])
	}
	for i := range rollouts.Items {
		all = append(all, &rollouts.Items[i])
	}
	for _, object := range all {
		before := object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // the copy of one
		object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), ofAgent))
		annotations := object.GetAnnotations()
		if app, is := object.(*v1alpha1.Application); is {
			if policy, changed := annotations[annotationPolicy]; changed {
				app.Spec.DeletionPolicy = v1alpha1.DeletionPolicy(policy)
			}
		}
		delete(annotations, annotationPolicy)
		delete(annotations, manifests.AnnotationPause)
		object.SetAnnotations(annotations)
		if err := u.kube.Patch(ctx, object, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("%s: finalizer: %w", object.GetName(), err)
		}
	}
	u.did("released %d Applications, ApplicationSets and Rollouts", len(all))
	return nil
}

func (u *uninstalling) definitions(ctx context.Context) error {
	if !u.crds {
		return nil
	}
	definitions, err := install.CRDs()
	if err != nil {
		return err
	}
	return u.remove(ctx, definitions)
}

func (u *uninstalling) did(format string, values ...any) {
	u.done = append(u.done, fmt.Sprintf(format, values...))
}

func (u *uninstalling) eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
