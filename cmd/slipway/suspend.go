package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler"
)

// longestSuspension bounds what breaks the rule that Git decides.
const longestSuspension = 24 * time.Hour

// suspended is what suspend and resume answer.
type suspended struct {
	Application string     `json:"application"`
	Suspended   bool       `json:"suspended"`
	Until       *time.Time `json:"until,omitempty"`
	Reason      string     `json:"reason,omitempty"`
	By          string     `json:"by,omitempty"`
}

func suspendCommand(g *globals) *cobra.Command {
	var lasting time.Duration
	var reason string
	cmd := &cobra.Command{
		Use:   "suspend APPLICATION",
		Short: "Break glass: let the agent keep its hands off for a while",
		Long: `Break glass: the agent neither applies nor heals an Application for a while, so that
people can work on the live objects. It ends by itself; then what was changed by hand is
put back to what Git says. An event and the API server's audit log tell who did it and why.

To suspend it for good set spec.suspend of the Application in Git.`,
		Example: `  slipway suspend shop-production --reason "INC-42: scaling by hand"
  slipway suspend shop-production --for 4h --reason "INC-42: scaling by hand"
  slipway resume shop-production`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if lasting <= 0 || lasting > longestSuspension {
				return usage("--for %s: want more than nothing and at most %s", lasting, longestSuspension)
			}
			if reason == "" {
				return usage("suspend needs --reason: others will ask why nothing is applied")
			}
			ctx := cmd.Context()
			kube, app, err := g.application(ctx, given[0])
			if err != nil {
				return err
			}
			until := time.Now().Add(lasting).UTC().Truncate(time.Second)
			pause := reconciler.Pause{Until: until, Reason: reason, By: whoami(ctx, kube)}
			text, err := json.Marshal(pause)
			if err != nil {
				return err
			}
			if err := annotate(ctx, kube, app, manifests.AnnotationPause, string(text)); err != nil {
				return err
			}
			message := fmt.Sprintf("suspended by %s until %s: %s", pause.By, until.Format(time.RFC3339), reason)
			if err := record(ctx, kube, app, corev1.EventTypeWarning, v1alpha1.ReasonSuspended, message); err != nil {
				return err
			}
			return g.print(suspended{app.Name, true, &until, reason, pause.By}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is suspended until %s; end it with: slipway resume %s\n", app.Name, clock(until), app.Name)
			})
		},
	}
	cmd.Flags().DurationVar(&lasting, "for", time.Hour, "how long, at most 24h")
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	return cmd
}

func resumeCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "resume APPLICATION",
		Short: "End what suspend began",
		Long: `End what suspend began, before it ends by itself. What was changed by hand meanwhile is put
back to what Git says.`,
		Example: "  slipway resume shop-production",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx := cmd.Context()
			kube, app, err := g.application(ctx, given[0])
			if err != nil {
				return err
			}
			if app.Spec.Suspend {
				return fmt.Errorf("application %s: it is suspended in Git, where a commit has to resume it (take out spec.suspend)", app.Name)
			}
			if _, found := app.Annotations[manifests.AnnotationPause]; !found {
				return g.print(suspended{Application: app.Name}, func(w io.Writer) { fmt.Fprintf(w, "%s was not suspended\n", app.Name) })
			}
			if err := annotate(ctx, kube, app, manifests.AnnotationPause, ""); err != nil {
				return err
			}
			if err := record(ctx, kube, app, corev1.EventTypeNormal, "Resumed", "resumed by "+whoami(ctx, kube)); err != nil {
				return err
			}
			return g.print(suspended{Application: app.Name}, func(w io.Writer) { fmt.Fprintf(w, "%s goes on\n", app.Name) })
		},
	}
}

// application reads one Application.
func (g *globals) application(ctx context.Context, name string) (client.Client, *v1alpha1.Application, error) {
	kube, _, err := g.kube()
	if err != nil {
		return nil, nil, err
	}
	app := &v1alpha1.Application{}
	if err := kube.Get(ctx, client.ObjectKey{Namespace: g.namespace, Name: name}, app); err != nil {
		return nil, nil, fmt.Errorf("application %s: %w (see 'slipway status')", name, err)
	}
	return kube, app, nil
}

// annotate sets an annotation; an empty value takes it away.
func annotate(ctx context.Context, kube client.Client, object client.Object, key, value string) error {
	before, is := object.DeepCopyObject().(client.Object)
	if !is {
		return fmt.Errorf("%T: no object", object)
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	if value == "" {
		delete(annotations, key)
	}
	object.SetAnnotations(annotations)
	if err := kube.Patch(ctx, object, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("%s: annotation %s: %w", object.GetName(), key, err)
	}
	return nil
}

// record tells in an event what a person did: what is done beside Git is to be seen.
func record(ctx context.Context, kube client.Client, object client.Object, kind, reason, message string) error {
	now, namespace, name := metav1.Now(), object.GetNamespace(), object.GetName()
	gvk, err := kube.GroupVersionKindFor(object)
	if err != nil {
		return err
	}
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: namespace, Name: name, UID: object.GetUID(),
		},
		Type: kind, Reason: reason, Message: message, Source: corev1.EventSource{Component: "slipway"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if err := kube.Create(ctx, event); err != nil {
		return fmt.Errorf("%s %s: it is done, and the event that tells of it could not be written: %w", strings.ToLower(gvk.Kind), name, err)
	}
	return nil
}

// whoami is who the API server takes the user for, and the account on this machine.
func whoami(ctx context.Context, kube client.Client) string {
	name := ""
	if current, err := user.Current(); err == nil {
		name = current.Username
	}
	var review authenticationv1.SelfSubjectReview
	if err := kube.Create(ctx, &review); err != nil || review.Status.UserInfo.Username == name {
		return cmp.Or(name, "somebody")
	}
	if name == "" {
		return review.Status.UserInfo.Username
	}
	return name + " (" + review.Status.UserInfo.Username + ")"
}
