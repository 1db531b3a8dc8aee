package wire

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/report"
)

// How often the agent looks for something new to report, and how often it reports although nothing is new.
const (
	reportEvery = 5 * time.Second
	reportAnew  = 5 * time.Minute
)

// reportChanges tells the server what the Applications look like, from the cache, until ctx
// ends. A report that is lost is made up for by the next one.
func reportChanges(ctx context.Context, kube client.Client, namespace string, server *report.Client) {
	var last []report.Application
	var sent time.Time
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lines, err := reportLines(ctx, kube, namespace)
		if err != nil || reflect.DeepEqual(lines, last) && time.Since(sent) < reportAnew {
			continue
		}
		if err := server.Report(ctx, report.Report{At: time.Now().UTC(), Applications: lines}); err != nil {
			ctrl.LoggerFrom(ctx).V(1).Info("report was not delivered", "cause", err.Error())
			continue
		}
		last, sent = lines, time.Now()
	}
}

func reportLines(ctx context.Context, kube client.Client, namespace string) ([]report.Application, error) {
	var apps v1alpha1.ApplicationList
	if err := kube.List(ctx, &apps, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	lines := make([]report.Application, 0, len(apps.Items))
	for i := range apps.Items {
		app := &apps.Items[i]
		line := report.Application{
			Name: app.Name, App: app.Spec.App, Environment: app.Spec.Environment, Path: app.Spec.Path,
			Healthy: conditions.IsReady(app), Message: conditions.GetMessage(app, v1alpha1.ConditionReady),
		}
		if line.App == "" {
			line.App = app.Name
		}
		if applied := app.Status.Applied; applied != nil {
			line.Revision, line.SetDigest = applied.Revision, applied.SetDigest
		}
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b report.Application) int { return strings.Compare(a.Name, b.Name) })
	return lines, nil
}
