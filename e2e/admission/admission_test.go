package admission

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

const atMost = time.Minute

// bed is a cluster whose agent reaches the registry through a door that counts and can be shut.
type bed struct {
	*testing.T
	*world.World
	signer   *sigstore.Signer
	public   []byte
	door     string // host of the registry's door
	requests atomic.Int64
	shut     atomic.Bool
}

func newBed(t *testing.T) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-admission-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{T: t, World: w}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: w.Registry.Host()})
	door := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b.requests.Add(1)
		if b.shut.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(door.Close)
	b.door = strings.TrimPrefix(door.URL, "http://")
	private, public, err := sigstore.GenerateKey(policy.Secret{})
	b.must(err)
	b.public = public
	b.signer, err = sigstore.NewSigner(sigstore.SignerOptions{Key: private})
	b.must(err)
	return b
}

func (b *bed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// image pushes a version of the sample and returns it as it is seen through the door.
func (b *bed) image(version string) builder.Image {
	b.Helper()
	reference, err := b.Sample(b.Context(), version, "ready")
	b.must(err)
	_, digest, _ := strings.Cut(reference, "@")
	return builder.Image{Repository: b.door + "/shop", Digest: digest}
}

// attested is a version that was built as the policy asks.
func (b *bed) attested(version string) builder.Image {
	b.Helper()
	image := b.image(version)
	b.attest(image)
	return image
}

func (b *bed) attest(image builder.Image) {
	b.Helper()
	b.must(b.signer.Attest(b.Context(), sigstore.Subject{Image: image, Job: "image", Run: builder.Run{
		ID: "run-" + image.Digest[7:15], Repo: builder.Repo{URL: "https://git.example.com/shop.git"},
		Revision: gitsource.Revision{Ref: "refs/heads/main", ID: "0123456789abcdef0123456789abcdef01234567"},
		Jobs:     []builder.Job{{Name: "image", Tier: "runc-root"}},
	}}))
}

// policy is the file of a policy that covers the shop.
func (b *bed) policy(public []byte) gitsource.Change {
	return world.Write("clusters/demo/policies.yaml", `apiVersion: slipway.dev/v1alpha1
kind: ImagePolicy
metadata: {name: shop, namespace: slipway-system, annotations: {slipway.dev/wave: "-1"}}
spec:
  images: ["`+b.door+`/**"]
  keys:
    - name: release
      pem: |
        `+strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n        ")+`
  requireProvenance:
    sources: ["https://git.example.com/*"]
    builders: ["https://slipway.dev/builder/runc-*"]
`)
}

func (b *bed) use(image builder.Image) gitsource.Change {
	return world.Write("apps/shop/web.yaml", fmt.Sprintf(workload, image.Reference()))
}

const (
	application = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: shop, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/shop
`
	workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: %q}]
`
)

func (b *bed) commit(message string, changes ...gitsource.Change) gitsource.ObjectID {
	b.Helper()
	id, err := b.Commit(b.Context(), message, changes...)
	b.must(err)
	return id
}

// runs waits until the shop runs an image, Ready at a commit.
func (b *bed) runs(image builder.Image, commit gitsource.ObjectID) {
	b.Helper()
	b.must(world.Eventually(b.Context(), atMost, func() error {
		if err := b.Ready(b.Context(), "shop", commit); err != nil {
			return err
		}
		return b.Deployment(b.Context(), "shop", "web", image.Reference())
	}))
}

// stays waits until the shop has a reason not to be Ready that says all of words, and checks what runs.
func (b *bed) stays(running builder.Image, reason string, words ...string) {
	b.Helper()
	b.must(world.Eventually(b.Context(), atMost, func() error {
		app, err := b.Application(b.Context(), "shop")
		if err != nil {
			return err
		}
		ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != reason {
			return fmt.Errorf("ready: %+v, want reason %s", ready, reason)
		}
		for _, word := range words {
			if !strings.Contains(ready.Message, word) {
				return fmt.Errorf("message %q does not say %q", ready.Message, word)
			}
		}
		stalled := meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionStalled)
		if stalled != (reason == v1alpha1.ReasonRefused) {
			return fmt.Errorf("stalled: %v with reason %s", stalled, reason)
		}
		return nil
	}))
	b.must(b.Deployment(b.Context(), "shop", "web", running.Reference()))
}

// meddle changes the image of the live Deployment by hand and waits until that is put right.
func (b *bed) meddle(image builder.Image) {
	b.Helper()
	deployment := &appsv1.Deployment{}
	deployment.Namespace, deployment.Name = "shop", "web"
	patch := client.RawPatch(types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"evil"}]}}}}`))
	b.must(b.Kube.Patch(b.Context(), deployment, patch, client.FieldOwner("kubectl-edit")))
	b.must(world.Eventually(b.Context(), atMost, func() error { return b.Deployment(b.Context(), "shop", "web", image.Reference()) }))
}

func TestAdmission(t *testing.T) {
	b := newBed(t)
	first, second, third := b.attested("1"), b.attested("2"), b.attested("3")
	unsigned := b.image("unsigned")
	start := b.commit("Start", b.policy(b.public), world.Write("clusters/demo/shop.yaml", application), b.use(first))
	b.must(b.Install(t.Context()))
	t.Run("policies that the API server refuses", b.badPolicies)
	agent, err := b.StartAgent(t.Context(), world.AgentOptions{})
	b.must(err)
	b.runs(first, start)
	t.Log("a signed image runs")

	b.commit("Use an image that nobody signed", b.use(unsigned))
	b.stays(first, v1alpha1.ReasonRefused, "Deployment", "web image "+unsigned.Reference(), "refused by image policy shop: not signed (let a Slipway pipeline build it")
	t.Log("an unsigned image is refused")

	before := b.commit("Use the next one", b.use(second))
	b.runs(second, before)

	// What was verified is not asked for again: neither by healing, nor by commits that leave the Set as it is.
	asked := b.requests.Load()
	b.meddle(second)
	b.runs(second, b.commit("Write a note", world.Write("apps/shop/NOTES.md", "hello")))
	b.reconcile()
	if more := b.requests.Load() - asked; more != 0 {
		t.Errorf("%d requests to the registry, although nothing changed", more)
	}

	b.outage(agent, second, third)

	_, stranger, err := sigstore.GenerateKey(policy.Secret{})
	b.must(err)
	b.commit("Trust another key", b.policy(stranger))
	b.stays(third, v1alpha1.ReasonRefused, "refused by image policy shop: signed by another key")
	b.runs(third, b.commit("Trust the first key again", b.policy(b.public)))
	t.Log("a changed policy counts at once")
	b.uncovered(third)
}

// outage: with the registry down, what runs is kept right, also by an agent that remembers nothing; what is new waits.
func (b *bed) outage(agent *world.Process, running, next builder.Image) {
	b.Helper()
	b.shut.Store(true)
	agent.Kill()
	agent, err := b.StartAgent(b.Context(), world.AgentOptions{})
	b.must(err)
	b.meddle(running)
	b.T.Log("what runs is kept right without a registry")
	commit := b.commit("Use the third while the registry is down", b.use(next))
	b.stays(running, v1alpha1.ReasonUnverified, next.Reference(), "not known", "503", "nothing is changed until it is known")
	b.shut.Store(false)
	b.runs(next, commit)
	b.T.Log("what was new is applied when the registry is back")
	log, err := os.ReadFile(agent.Log)
	b.must(err)
	if bytes.Contains(log, []byte("panic")) {
		b.Errorf("the agent's log:\n%s", log)
	}
}

// uncovered: the default policy decides about what no pattern covers.
func (b *bed) uncovered(running builder.Image) {
	b.Helper()
	foreign := builder.Image{Repository: "quay.io/some/thing", Digest: running.Digest}
	allowed := b.commit("Use an image that no policy covers", b.use(foreign))
	b.runs(foreign, allowed)
	defaults := func(spec string) gitsource.Change {
		return world.Write("clusters/demo/default.yaml", "apiVersion: slipway.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: default, namespace: slipway-system}\nspec: "+spec+"\n")
	}
	b.commit("Refuse what is not covered", defaults("{uncovered: Deny}"))
	b.stays(foreign, v1alpha1.ReasonRefused, "no image policy covers quay.io/some/thing")
	b.runs(foreign, b.commit("Cover it", defaults("{uncovered: Deny, images: [quay.io/some/*], allowUnsigned: true}")))
	b.T.Log("the default decides about images that no policy covers")
}

// reconcile asks for a pass and waits until it has ended.
func (b *bed) reconcile() {
	b.Helper()
	app, err := b.Application(b.Context(), "shop")
	b.must(err)
	patch := client.MergeFrom(app.DeepCopy())
	if app.Annotations == nil {
		app.Annotations = map[string]string{}
	}
	app.Annotations[manifests.AnnotationReconcile] = "now"
	b.must(b.Kube.Patch(b.Context(), app, patch))
	b.must(world.Eventually(b.Context(), atMost, func() error {
		app, err := b.Application(b.Context(), "shop")
		if err == nil && app.Status.LastHandledReconcileAt != "now" {
			return fmt.Errorf("handled %q", app.Status.LastHandledReconcileAt)
		}
		return err
	}))
}

// Policies that say nothing, or two things at once, are refused by the API server.
func (b *bed) badPolicies(t *testing.T) {
	key := []v1alpha1.ImageKey{{Name: "release", PEM: string(b.public)}}
	for name, c := range map[string]struct {
		policy string
		spec   v1alpha1.ImagePolicySpec
		want   string
	}{
		"covers nothing":           {"shop", v1alpha1.ImagePolicySpec{Keys: key}, "spec.images is required"},
		"a default by another":     {"shop", v1alpha1.ImagePolicySpec{Images: []string{"a/b"}, Keys: key, Uncovered: "Deny"}, "only the ImagePolicy 'default'"},
		"neither keys nor freedom": {"shop", v1alpha1.ImagePolicySpec{Images: []string{"a/b"}}, "either keys"},
		"keys and freedom":         {"shop", v1alpha1.ImagePolicySpec{Images: []string{"a/b"}, Keys: key, AllowUnsigned: true}, "either keys"},
		"provenance by nobody": {
			"shop", v1alpha1.ImagePolicySpec{Images: []string{"a/b"}, AllowUnsigned: true, RequireProvenance: &v1alpha1.ImageProvenance{}}, "needs keys",
		},
		"a pattern that could match nothing": {"shop", v1alpha1.ImagePolicySpec{Images: []string{"registry/[a"}, Keys: key}, "spec.images"},
		"an unknown default":                 {"default", v1alpha1.ImagePolicySpec{Uncovered: "Maybe"}, "Unsupported value"},
		"fine":                               {"shop", v1alpha1.ImagePolicySpec{Images: []string{"a/**"}, Keys: key}, ""},
		"fine default":                       {"default", v1alpha1.ImagePolicySpec{Uncovered: "Deny"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			object := &v1alpha1.ImagePolicy{Spec: c.spec}
			object.Namespace, object.Name = world.Namespace, c.policy
			err := b.Kube.Create(t.Context(), object, client.DryRunAll)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
