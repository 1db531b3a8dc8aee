package adopt

import (
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// tool is one that kept the objects before, with what it leaves on them.
type tool struct {
	name        string // of the story
	make        func(story, tool)
	manager     string // of the fields, as the tool calls itself
	labels      map[string]string
	annotations map[string]string
	template    map[string]string // annotations of the pods
}

// tools leave these labels and annotations: kustomize-controller's and helm-controller's sets of owner labels, Helm's release
// annotations, and Argo CD's tracking by annotation, which is its default since 3.0, or by label, which it was before.
func tools() []tool {
	flux := map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
	release := map[string]string{"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "web-1.2.3"}
	chart := map[string]string{"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "web"}
	fluxHelm := map[string]string{"helm.toolkit.fluxcd.io/name": "web", "helm.toolkit.fluxcd.io/namespace": "flux-system"}
	for key, value := range release {
		fluxHelm[key] = value
	}
	tracking := map[string]string{"argocd.argoproj.io/tracking-id": "web:apps/Deployment:web/web"}
	instance := map[string]string{"app.kubernetes.io/instance": "web"}
	restarted := map[string]string{"kubectl.kubernetes.io/restartedAt": "2026-01-02T03:04:05Z"}
	return []tool{
		{name: "flux-kustomize", make: story.appliedByServer, manager: "kustomize-controller", labels: flux},
		{name: "flux-helm", make: story.created, manager: "helm-controller", labels: fluxHelm, annotations: chart},
		{name: "helm-three", make: story.created, manager: "helm", labels: release, annotations: chart},
		{name: "helm-four", make: story.appliedByServer, manager: "helm", labels: release, annotations: chart},
		{name: "argo-server-side", make: story.appliedByServer, manager: "argocd-controller", annotations: tracking},
		{name: "argo-client-side", make: story.appliedByClient, manager: "argocd-controller", annotations: tracking},
		{name: "argo-before", make: story.appliedByClient, manager: "argocd-application-controller", labels: instance},
		{name: "kubectl-apply", make: story.appliedByClient, manager: "kubectl-client-side-apply"},
		{name: "kubectl-restarted", make: story.restarted, manager: "kubectl-client-side-apply", template: restarted},
		{name: "nobody", make: story.wiped, manager: "kubectl-create"},
	}
}

// made are the objects with what a tool puts on them.
func (s story) made(by tool) []*unstructured.Unstructured {
	s.Helper()
	var all []*unstructured.Unstructured
	for _, text := range strings.Split(objects("one"), "---\n") {
		object := &unstructured.Unstructured{}
		s.must(yaml.Unmarshal([]byte(text), &object.Object))
		object.SetNamespace(s.name)
		if by.labels != nil {
			object.SetLabels(by.labels)
		}
		if by.annotations != nil {
			object.SetAnnotations(by.annotations)
		}
		all = append(all, object)
	}
	return all
}

// appliedByServer is server-side apply.
func (s story) appliedByServer(by tool) {
	s.Helper()
	for _, object := range s.made(by) {
		s.must(shared.Kube.Apply(s.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(by.manager), client.ForceOwnership))
	}
}

// created is how Helm 3 makes objects, and changes them by patches of its own.
func (s story) created(by tool) {
	s.Helper()
	for _, object := range s.made(by) {
		s.must(shared.Kube.Create(s.Context(), object, client.FieldOwner(by.manager)))
	}
}

// appliedByClient is what kubectl does, and Argo CD with the code of kubectl: the last applied manifest stands in an annotation.
func (s story) appliedByClient(by tool) {
	s.Helper()
	dir := s.TempDir()
	for _, object := range s.made(by) {
		text, err := yaml.Marshal(object.Object)
		s.must(err)
		s.must(os.WriteFile(filepath.Join(dir, object.GetKind()+".yaml"), text, 0o600))
	}
	_, err := shared.Cluster.Kubectl(s.Context(), "apply", "--field-manager="+by.manager, "-f", dir)
	s.must(err)
}

// restarted is what a person did to the pods with `kubectl rollout restart`.
func (s story) restarted(by tool) {
	s.Helper()
	s.appliedByClient(by)
	for key, value := range by.template {
		_, err := shared.Cluster.Kubectl(s.Context(), "patch", "deployment", "web", "-n", s.name, "--field-manager=kubectl-rollout", "-p",
			`{"spec":{"template":{"metadata":{"annotations":{"`+key+`":"`+value+`"}}}}}`)
		s.must(err)
	}
}

// wiped are objects whose managers nobody knows any more. The API server calls them before-first-apply.
func (s story) wiped(by tool) {
	s.Helper()
	s.created(by)
	for _, object := range s.made(by) {
		_, err := shared.Cluster.Kubectl(s.Context(), "patch", object.GetKind(), object.GetName(), "-n", s.name, "--type=merge", "-p", `{"metadata":{"managedFields":[{}]}}`)
		s.must(err)
	}
}
