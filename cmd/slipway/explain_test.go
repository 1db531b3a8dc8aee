package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
)

func TestExplain(t *testing.T) {
	d := newDeck(t)
	overlay := "namePrefix: eu-\nresources: [../base]\npatches: [{path: more.yaml}]\nsecretGenerator: [{name: token, literals: [key=correct-horse]}]\n"
	d.application("explained", "", map[string]string{
		"base/kustomization.yaml": "resources: [web.yaml]\n", "base/web.yaml": "# the shop\n" + workload,
		"production/kustomization.yaml": overlay,
		"production/more.yaml":          "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {minReadySeconds: 1}\n",
	})
	changed, err := d.Commit(d.Context(), "Run three\n\nMore is more.\n", world.Write("apps/explained/base/web.yaml", "# the shop\n"+strings.Replace(workload, "replicas: 2", "replicas: 3", 1)))
	d.must(err)
	applied, err := d.Commit(d.Context(), "Touch something else", world.Write("apps/explained/production/more.yaml",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {minReadySeconds: 0}\n"))
	d.must(err)
	d.slipway(exitDone, "reconcile", "explained", "--source", "--wait")

	var e explanation
	d.read(exitDone, &e, "explain", "deploy/eu-web", "-n", "explained")
	if e.Application != "explained" || e.Environment != "production" || e.Commit == nil || e.Commit.ID != string(applied) || e.Commit.Author != "Robin Marsh <robin@shop.example>" {
		t.Errorf("explained: %+v", e)
	}
	if e.Origin == nil || e.Origin.File != "apps/explained/base/web.yaml" || e.Origin.Line != 2 || len(e.Origin.Through) != 2 || len(e.Origin.Patches) != 1 {
		t.Errorf("origin: %+v", e.Origin)
	}
	if e.Changed == nil || e.Changed.ID != string(changed) || e.Changed.Subject != "Run three" {
		t.Errorf("changed: %+v", e.Changed)
	}
	if len(e.Drift) != 0 || len(e.Unknown) != 0 {
		t.Errorf("drift %v, unknown %v", e.Drift, e.Unknown)
	}
	owners := map[string]string{}
	for _, f := range e.Fields {
		owners[f.Field] += f.Manager + " " + f.Operation + " " + f.Subresource + ";"
	}
	if got := owners["spec.replicas"]; got != "slipway Apply ;" {
		t.Errorf("spec.replicas is owned by %q of %v", got, owners)
	}
	if got := owners[`spec.template.spec.containers[name="web"].image`]; got != "slipway Apply ;" {
		t.Errorf("the image is owned by %q", got)
	}

	// A Pod is explained by what it was made of.
	var pods corev1.PodList
	d.must(d.Kube.List(d.Context(), &pods, client.InNamespace("explained")))
	out := d.slipway(exitDone, "explain", "po/"+pods.Items[0].Name, "-n", "explained")
	d.says(out, "made by      apps/ReplicaSet explained/eu-web-", "made by      apps/Deployment explained/eu-web", "explained in production",
		"changed      "+changed.Short()+" by Robin Marsh", "FIELD", "kube-")

	// Of a Secret no value is told, and what generated it is.
	var secrets corev1.SecretList
	d.must(d.Kube.List(d.Context(), &secrets, client.InNamespace("explained")))
	out = d.slipway(exitDone, "explain", "secrets/"+secrets.Items[0].Name, "-n", "explained")
	d.says(out, "made by secretGenerator token", "apps/explained/production/kustomization.yaml", "data.key")
	if strings.Contains(out, "horse") {
		t.Errorf("a secret value is shown:\n%s", out)
	}

	// What nobody's Application owns is a no, and what is not there an error.
	d.says(d.slipway(exitNo, "explain", "ns/kube-system"), "application  none")
	d.says(d.slipway(exitFailed, "explain", "deploy/nothing", "-n", "explained"), "nothing", "not found")
	d.says(d.slipway(exitFailed, "explain", "gadgets/nothing"), "api-resources")
	d.says(d.slipway(exitUsage, "explain", "web"), "KIND/NAME")
}

// While an Application only reports drift, explain tells what differs and whose it is.
func TestExplainDrift(t *testing.T) {
	d := newDeck(t)
	d.application("drifting", "drift: Report", map[string]string{"production/settings.yaml": settings})
	live := &corev1.ConfigMap{}
	d.get("drifting", "settings", live)
	live.Data["level"] = "debug"
	d.must(d.Kube.Update(d.Context(), live, client.FieldOwner("somebody")))
	d.says(d.slipway(exitDone, "explain", "configmap/settings", "-n", "drifting"), `drift        data.level: "debug" -> "info" (somebody)`, "somebody")
}

// Of a chart it is said that it is one: any template may have made the object.
func TestExplainChart(t *testing.T) {
	d := newDeck(t)
	d.application("charted", "helm: {values: {level: info}}", map[string]string{
		"production/Chart.yaml":              "apiVersion: v2\nname: charted\nversion: 1.0.0\n",
		"production/templates/settings.yaml": strings.Replace(settings, "info", "{{ .Values.level }}", 1),
	})
	d.says(d.slipway(exitDone, "explain", "cm/settings", "-n", "charted"), "rendered by the chart apps/charted/production", "charted in production")
}
