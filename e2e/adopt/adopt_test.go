package adopt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// objects are the same in Git as those that the tools applied; value is that of the setting.
func objects(value string) string {
	return strings.NewReplacer("VALUE", value, "IMAGE", shared.image).Replace(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {value: VALUE, old: still-here}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: old, port: 81, targetPort: 8081}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: IMAGE
          ports: [{name: http, containerPort: 8080}]
          env:
            - {name: GREETING, value: hello}
            - {name: OLD, value: still-here}
`)
}

// without are the objects after fields were deleted from Git.
func without(value string) string {
	return strings.NewReplacer(", old: still-here", "", "    - {name: old, port: 81, targetPort: 8081}\n", "", "            - {name: OLD, value: still-here}\n", "").
		Replace(objects(value))
}

func (s story) file(content string) gitsource.Change {
	return world.Write("apps/"+s.name+"/all.yaml", content)
}

// Whatever kept the objects before: they become ours without a pod being replaced, and what then leaves Git leaves the cluster.
func TestAdoption(t *testing.T) {
	for _, by := range tools() {
		t.Run(by.name, func(t *testing.T) {
			t.Parallel()
			s := story{t, by.name}
			s.namespace()
			by.make(s, by)
			s.available(2)
			before, pods := s.deployment(), s.pods()

			s.commit("Adopt "+s.name, s.application(), s.file(objects("one")))
			s.ready(func() error { return s.adopted(by) })
			after := s.deployment()
			if after.UID != before.UID || !equality.Semantic.DeepEqual(after.Spec, before.Spec) || !maps.Equal(s.pods(), pods) {
				t.Errorf("generation %d, pods %v; before the adoption %d, %v", after.Generation, s.pods(), before.Generation, pods)
			}
			// Annotations count for the generation of a Deployment, too, and those of the tool go. Of what nobody owns, its
			// controller's go, too, and it writes them again.
			if by.name != "nobody" && maps.Equal(after.Annotations, before.Annotations) && after.Generation != before.Generation {
				t.Errorf("generation %d, before the adoption %d", after.Generation, before.Generation)
			}
			for key, value := range by.template {
				if after.Spec.Template.Annotations[key] != value {
					t.Errorf("annotations of the pods: %v, want %s: %s as a person set it", after.Spec.Template.Annotations, key, value)
				}
			}
			for key := range by.annotations {
				if after.Annotations[key] != "" {
					t.Errorf("annotation %s of the former tool is still there", key)
				}
			}

			s.commit("Change "+s.name, s.file(without("two")))
			s.ready(s.removed)
			if text := s.healings(); text != "" {
				t.Errorf("events:\n%s", text)
			}
		})
	}
}

// adopted fails unless nobody of former times owns a field any more.
func (s story) adopted(by tool) error {
	for _, object := range []client.Object{&corev1.ConfigMap{}, &corev1.Service{}, &appsv1.Deployment{}} {
		name := "web"
		if _, is := object.(*corev1.ConfigMap); is {
			name = "settings"
		}
		if err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: name}, object); err != nil {
			return err
		}
		var names []string
		for _, e := range object.GetManagedFields() {
			if e.Subresource == "" {
				names = append(names, e.Manager)
			}
		}
		if !slices.Contains(names, manifests.FieldManager) || slices.Contains(names, by.manager) || slices.Contains(names, plan.BeforeFirstApply) {
			return fmt.Errorf("%T is managed by %v", object, names)
		}
	}
	return nil
}

// removed fails unless what left Git left the cluster.
func (s story) removed() error {
	settings, err := shared.clients.CoreV1().ConfigMaps(s.name).Get(s.Context(), "settings", metav1.GetOptions{})
	if err != nil {
		return err
	}
	service, err := shared.clients.CoreV1().Services(s.name).Get(s.Context(), "web", metav1.GetOptions{})
	if err != nil {
		return err
	}
	deployment, err := shared.clients.AppsV1().Deployments(s.name).Get(s.Context(), "web", metav1.GetOptions{})
	if err != nil {
		return err
	}
	env := deployment.Spec.Template.Spec.Containers[0].Env
	if len(settings.Data) != 1 || settings.Data["value"] != "two" || len(service.Spec.Ports) != 1 || len(env) != 1 || env[0].Name != "GREETING" {
		return fmt.Errorf("settings %v, ports %v, variables %v", settings.Data, service.Spec.Ports, env)
	}
	return nil
}

// healings are the events that speak of drift: nobody has done anything to the objects.
func (s story) healings() string {
	s.Helper()
	events, err := shared.clients.CoreV1().Events(world.Namespace).List(s.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + s.name})
	s.must(err)
	var lines []string
	for _, e := range events.Items {
		if strings.Contains(e.Message, "healing") || e.Type == "Warning" {
			lines = append(lines, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Message))
		}
	}
	return strings.Join(lines, "\n")
}
