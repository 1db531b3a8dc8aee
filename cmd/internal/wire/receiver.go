package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/gitea"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler/notice"
	"github.com/slipway-cd/slipway/reconciler/notice/deliver"
)

// receiver is one Notification at work.
type receiver struct {
	n          *notifier
	name       string
	uid        types.UID
	generation int64
	spec       v1alpha1.NotificationSpec
	rule       *notice.Rule
	invalid    error         // of the spec; then nothing is told
	past       notice.Past   // of n.mu
	heard      chan struct{} // there may be something to tell
	end        context.CancelFunc
	observed   int64  // generation that the status was about when this began
	state      string // reason and message last written to the status
}

// Why a message that was to be told was not.
const (
	droppedUndeliverable = "undeliverable" // all attempts have failed
	droppedTemplate      = "template"      // it makes no text of this message
)

func (r *receiver) run(ctx context.Context) {
	if r.invalid != nil {
		r.tell(ctx, metav1.ConditionFalse, v1alpha1.ReasonNotificationInvalid, r.invalid.Error())
		return
	}
	if r.observed != r.generation { // what the status says is about another spec
		r.tell(ctx, metav1.ConditionTrue, v1alpha1.ReasonNotificationIdle, "nothing was told yet")
	}
	for {
		m, again := r.n.next(r)
		if m != nil {
			r.say(ctx, *m)
			continue
		}
		var later <-chan time.Time
		if !again.IsZero() {
			later = time.After(again.Sub(r.n.now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.heard:
		case <-later:
		}
	}
}

// say puts a message into words and delivers it.
func (r *receiver) say(ctx context.Context, m notice.Message) {
	text, err := r.rule.Text(m)
	if err != nil {
		r.n.counts.dropped.WithLabelValues(r.name, droppedTemplate).Inc()
		r.n.log.Info("a message was dropped", "notification", r.name, "about", m.Name, "reason", m.Reason, "cause", err.Error())
		return
	}
	r.deliver(ctx, deliver.Notice{Message: m, Text: text, At: r.n.now()})
}

// deliver tries until the receiver has taken a message or it is time to give it up.
func (r *receiver) deliver(ctx context.Context, next deliver.Notice) {
	for failures := 1; ; failures++ {
		err := r.attempt(ctx, next)
		if err == nil {
			r.n.counts.delivered.WithLabelValues(r.name).Inc()
			r.tell(ctx, metav1.ConditionTrue, v1alpha1.ReasonNotificationTaken, "the receiver takes what it is told")
			return
		}
		if ctx.Err() != nil {
			return
		}
		r.n.counts.failures.WithLabelValues(r.name).Inc()
		wait, again := notice.Backoff(failures)
		reason := v1alpha1.ReasonNotificationFailing
		if errors.Is(err, deliver.ErrInvalid) {
			reason, again = v1alpha1.ReasonNotificationInvalid, false
		}
		r.tell(ctx, metav1.ConditionFalse, reason, err.Error())
		if !again {
			r.n.counts.dropped.WithLabelValues(r.name, droppedUndeliverable).Inc()
			r.n.log.Info("a message was dropped", "notification", r.name, "about", next.Name, "reason", next.Reason, "cause", err.Error())
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// attempt reads the Secret anew each time: who corrects it need not wait for anything.
func (r *receiver) attempt(ctx context.Context, next deliver.Notice) error {
	var secret corev1.Secret
	key := types.NamespacedName{Namespace: r.n.namespace, Name: r.spec.SecretRef.Name}
	if err := r.n.mgr.GetAPIReader().Get(ctx, key, &secret); err != nil {
		return fmt.Errorf("secret %s: %w", key.Name, err)
	}
	var err error
	if r.spec.Provider == v1alpha1.NotifyCommitStatus {
		err = r.status(ctx, &secret, next)
	} else {
		err = r.n.sender.Send(ctx, r.spec.Provider, secret.Data, next)
	}
	if err != nil {
		return fmt.Errorf("secret %s: %w", key.Name, err)
	}
	return nil
}

// status sets a status at the commit that a message is about.
func (r *receiver) status(ctx context.Context, secret *corev1.Secret, next deliver.Notice) error {
	var app v1alpha1.Application
	if err := r.n.mgr.GetClient().Get(ctx, types.NamespacedName{Namespace: r.n.namespace, Name: next.Application}, &app); err != nil {
		return fmt.Errorf("%w: application %s: %w", deliver.ErrInvalid, next.Application, err)
	}
	source, err := r.n.source(ctx, &app)
	if err != nil {
		return fmt.Errorf("%w: %w", deliver.ErrInvalid, err)
	}
	revision, err := gitsource.ParseRevision(next.Revision)
	if err != nil {
		return fmt.Errorf("%w: the message is about no commit", deliver.ErrInvalid)
	}
	host, repo, err := forge.SplitCloneURL(source.Spec.URL)
	if err != nil {
		return fmt.Errorf("%w: %w", deliver.ErrInvalid, err)
	}
	client, err := gitea.New(gitea.Options{URL: host, Repo: repo, User: string(secret.Data["username"]), Token: policy.NewSecret(string(secret.Data["token"]))})
	if err != nil {
		return fmt.Errorf("%w: %w", deliver.ErrInvalid, err)
	}
	err = client.Status(ctx, revision.ID, forge.Status{
		State:   map[string]forge.StatusState{"True": forge.Success, "False": forge.Failure, "Unknown": forge.Pending}[next.Ready],
		Context: "slipway/" + next.Cluster + "/" + next.Name, Description: line(next.Text),
	})
	var failed *forge.Error
	if errors.As(err, &failed) && !failed.Temporary() {
		return fmt.Errorf("%w: %w", deliver.ErrInvalid, err)
	}
	return err
}

// line is the beginning of a text, as much as hosts show.
func line(text string) string {
	const most = 140
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-3]) + "..."
	}
	return text
}

// tell writes the status when it changes.
func (r *receiver) tell(ctx context.Context, status metav1.ConditionStatus, reason, message string) {
	if r.state == reason+message {
		return
	}
	notification := &v1alpha1.Notification{}
	if err := r.n.mgr.GetClient().Get(ctx, types.NamespacedName{Namespace: r.n.namespace, Name: r.name}, notification); err != nil {
		return // it is gone, or the next message says it
	}
	before := notification.DeepCopy()
	notification.Status.ObservedGeneration = r.generation
	meta.SetStatusCondition(&notification.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message, ObservedGeneration: r.generation,
	})
	if err := r.n.mgr.GetClient().Status().Patch(ctx, notification, client.MergeFrom(before)); err == nil {
		r.state = reason + message
	}
}

// noticeCounts are the collectors of notifications.
type noticeCounts struct{ delivered, failures, dropped *prometheus.CounterVec }

func newNoticeCounts(registerer prometheus.Registerer) (*noticeCounts, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	c := &noticeCounts{
		delivered: counter("slipway_notifications_delivered_total", "Messages that a receiver has taken, by Notification.", "notification"),
		failures:  counter("slipway_notification_failures_total", "Attempts to deliver that have failed, by Notification.", "notification"),
		dropped: counter("slipway_notifications_dropped_total",
			"Messages that were not delivered, by Notification and why: repeated, superseded, template or undeliverable.", "notification", "why"),
	}
	for _, vector := range []**prometheus.CounterVec{&c.delivered, &c.failures, &c.dropped} {
		var there prometheus.AlreadyRegisteredError
		err := registerer.Register(*vector)
		switch {
		case errors.As(err, &there):
			known, is := there.ExistingCollector.(*prometheus.CounterVec)
			if !is {
				return nil, fmt.Errorf("metrics: %w", err)
			}
			*vector = known // several agents of one process count together
		case err != nil:
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return c, nil
}

// forget takes a Notification that is gone out of the metrics.
func (c *noticeCounts) forget(name string) {
	for _, vector := range []*prometheus.CounterVec{c.delivered, c.failures, c.dropped} {
		vector.DeletePartialMatch(prometheus.Labels{"notification": name})
	}
}
