package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// lookEvery is how often a command that waits looks at what it waits for.
const lookEvery = 300 * time.Millisecond

// reconciled is what became of one thing that was to be looked at.
type reconciled struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Asked    string `json:"asked"` // value of the annotation
	Handled  bool   `json:"handled"`
	Ready    bool   `json:"ready"`
	State    string `json:"state,omitempty"`
	Revision string `json:"revision,omitempty"`
	Message  string `json:"message,omitempty"`
}

func reconcileCommand(g *globals) *cobra.Command {
	var source, wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "reconcile [APPLICATION]",
		Short: "Have the agent look at an Application, or at Git, now",
		Long: `Have the agent look now instead of when something changes: at an Application, with --source
at the branch that it follows first, with --source alone at all branches that are followed.

With --wait it goes on until the agent has looked and the Application is ready, or says
why it is not, with exit code 3. A branch counts as looked at when the agent has the
commit that this command sees in Git with your own credentials. What was asked for
stands when the waiting is interrupted.`,
		Example: `  slipway reconcile shop-production --wait
  slipway reconcile shop-production --source --wait --timeout 10m
  slipway reconcile --source`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 && !source {
				return usage("reconcile needs an APPLICATION, or --source")
			}
			kube, _, err := g.kube()
			if err != nil {
				return err
			}
			r := &reconciling{g: g, kube: kube, wait: wait, timeout: timeout}
			ctx := cmd.Context()
			err = r.run(ctx, given, source)
			if ctx.Err() != nil {
				return errors.New("interrupted; what was asked for stands, and the agent looks all the same")
			}
			if err != nil && !errors.Is(err, errNo) {
				return err
			}
			return errors.Join(g.print(r.answers, func(w io.Writer) { printReconciled(w, r.answers, wait) }), err)
		},
	}
	cmd.Flags().BoolVar(&source, "source", false, "look at Git first")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it was looked at and is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

// reconciling is one call of reconcile.
type reconciling struct {
	g       *globals
	kube    client.Client
	wait    bool
	timeout time.Duration
	answers []reconciled
}

func (r *reconciling) run(ctx context.Context, given []string, source bool) error {
	var app *v1alpha1.Application
	if len(given) == 1 {
		var err error
		if _, app, err = r.g.application(ctx, given[0]); err != nil {
			return err
		}
	}
	if source {
		if err := r.sources(ctx, app); err != nil {
			return err
		}
	}
	if app == nil {
		return nil
	}
	answer := reconciled{Kind: "Application", Name: app.Name, Asked: word()}
	if err := annotate(ctx, r.kube, app, manifests.AnnotationReconcile, answer.Asked); err != nil {
		return err
	}
	return r.await(ctx, answer, func(answer *reconciled) (bool, error) {
		err := r.kube.Get(ctx, client.ObjectKeyFromObject(app), app)
		if err != nil {
			return false, fmt.Errorf("application %s: %w", app.Name, err)
		}
		return applicationState(answer, app), nil
	})
}

// sources has one source looked at, that of app, or all of them.
func (r *reconciling) sources(ctx context.Context, app *v1alpha1.Application) error {
	if app != nil && app.Spec.SourceRef.IsArtifact() {
		return fmt.Errorf("application %s: its %s %s is looked at by its interval alone (shorten spec.interval)", app.Name, app.Spec.SourceRef.Kind, app.Spec.SourceRef.Name)
	}
	var all v1alpha1.GitSourceList
	if err := r.kube.List(ctx, &all, client.InNamespace(r.g.namespace)); err != nil {
		return fmt.Errorf("gitsources of namespace %s: %w", r.g.namespace, err)
	}
	found := false
	for i := range all.Items {
		source := &all.Items[i]
		if app != nil && source.Name != app.Spec.SourceRef.Name {
			continue
		}
		found = true
		if err := r.source(ctx, source); err != nil {
			return err
		}
	}
	if !found && app != nil {
		return fmt.Errorf("application %s: gitsource %s does not exist; create it or correct spec.sourceRef.name", app.Name, app.Spec.SourceRef.Name)
	}
	if !found {
		return fmt.Errorf("gitsources of namespace %s: there are none (see 'slipway install --help')", r.g.namespace)
	}
	return nil
}

func (r *reconciling) source(ctx context.Context, source *v1alpha1.GitSource) error {
	answer, began := reconciled{Kind: "GitSource", Name: source.Name, Asked: word()}, time.Now()
	var tip gitsource.ObjectID
	if r.wait {
		var err error
		if tip, err = r.tip(ctx, source); err != nil {
			return err
		}
	}
	if err := annotate(ctx, r.kube, source, manifests.AnnotationReconcile, answer.Asked); err != nil {
		return err
	}
	return r.await(ctx, answer, func(answer *reconciled) (bool, error) {
		err := r.kube.Get(ctx, client.ObjectKeyFromObject(source), source)
		if err != nil {
			return false, fmt.Errorf("gitsource %s: %w", source.Name, err)
		}
		answer.Revision = source.Status.Revision
		state(answer, source.Status.Conditions)
		later := source.Status.FetchedAt != nil && source.Status.FetchedAt.After(began) // the branch has gone on meanwhile
		answer.Handled = strings.HasSuffix(source.Status.Revision, string(tip)) || later
		refused := answer.State == v1alpha1.ReasonSourceUnverified || answer.State == v1alpha1.ReasonSourceInvalid
		return answer.Handled || refused && time.Since(began) > refusedFor, nil
	})
}

// refusedFor is how long a source has to be refused to count: what it says may be of an earlier look.
const refusedFor = 5 * time.Second

// tip is where the branch of a source is, as this command sees it.
func (r *reconciling) tip(ctx context.Context, source *v1alpha1.GitSource) (gitsource.ObjectID, error) {
	if source.Spec.Commit != "" {
		return gitsource.ObjectID(source.Spec.Commit), nil
	}
	if source.Spec.Tag != "" || source.Spec.Semver != "" {
		return "", fmt.Errorf("gitsource %s: it follows tags, and only of a branch is it known here what there is to wait for (leave out --wait)", source.Name)
	}
	username, password := r.g.credentials(ctx, source.Spec.URL)
	repo, err := wire.OpenRepository(ctx, source.Spec.URL, username, password, cacheDir())
	if err != nil {
		return "", err
	}
	revision, err := repo.Fetch(ctx, "refs/heads/"+cmp.Or(source.Spec.Branch, "main"))
	if err != nil {
		return "", fmt.Errorf("gitsource %s: what there is to wait for cannot be read: %w (leave out --wait)", source.Name, err)
	}
	return revision.ID, nil
}

// await looks until look is done. An answer that is not ready is a no.
func (r *reconciling) await(ctx context.Context, answer reconciled, look func(*reconciled) (bool, error)) error {
	defer func() { r.answers = append(r.answers, answer) }()
	if !r.wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		done, err := look(&answer)
		if ctx.Err() == nil && err != nil {
			return err
		}
		if done && err == nil {
			if !answer.Ready {
				return errNo
			}
			return nil
		}
		select {
		case <-ctx.Done():
			if !answer.Handled {
				answer.Message = strings.TrimSpace(fmt.Sprintf("the agent has not looked within %s (does slipway-agent run?) %s", r.timeout, answer.Message))
			}
			answer.Ready = false
			return errNo
		case <-tick.C:
		}
	}
}

// applicationState reports whether the agent has looked and there is nothing more to wait for.
func applicationState(answer *reconciled, app *v1alpha1.Application) bool {
	state(answer, app.Status.Conditions)
	if app.Status.Applied != nil {
		answer.Revision = app.Status.Applied.Revision
	}
	answer.Handled = app.Status.LastHandledReconcileAt == answer.Asked && app.Status.ObservedGeneration == app.Generation
	ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	return answer.Handled && ready != nil && ready.Status != metav1.ConditionUnknown
}

func state(answer *reconciled, conditions []metav1.Condition) {
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		answer.Ready, answer.State, answer.Message = ready.Status == metav1.ConditionTrue, ready.Reason, ready.Message
	}
}

// word is a value of the reconcile annotation that was not there before.
func word() string { return time.Now().UTC().Format(time.RFC3339Nano) }

func printReconciled(w io.Writer, answers []reconciled, waited bool) {
	for _, a := range answers {
		what := strings.ToLower(a.Kind) + " " + a.Name
		switch {
		case !waited:
			fmt.Fprintf(w, "%s: the agent was asked to look\n", what)
		case a.Ready:
			fmt.Fprintf(w, "%s: ready: %s\n", what, a.Message)
		default:
			fmt.Fprintf(w, "%s: not ready: %s: %s\n", what, or(a.State), a.Message)
		}
	}
}
