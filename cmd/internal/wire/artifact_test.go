package wire_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const (
	fluxLayer  = "application/vnd.cncf.flux.content.v1.tar+gzip"
	chartLayer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// registryBed is an agent beside a registry and a chart repository over HTTP.
type registryBed struct {
	*testing.T
	*world.World
	charts *chartHost
}

func TestSourcesBesidesGit(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts a cluster")
	}
	w, err := world.Start(t.Context(), world.Options{Dir: t.TempDir(), Node: cluster.NodeNone, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &registryBed{T: t, World: w, charts: newChartHost(t)}
	b.must(w.Install(t.Context()))
	_, err = w.StartAgent(t.Context(), world.AgentOptions{})
	b.must(err)
	t.Run("an artifact is followed, fails, and waits for a person", b.artifact)
	t.Run("without a signature it is not followed", b.signed)
	t.Run("a chart from a repository over HTTP", b.chartOverHTTP)
	t.Run("a chart from a registry", b.chartInRegistry)
	t.Run("what cannot be meant is refused", b.refused)
}

func (b *registryBed) artifact(t *testing.T) {
	// A Deployment whose pods find no node fails by its deadline: a definite failure that needs no node.
	const stuck = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec:\n  progressDeadlineSeconds: 1\n" +
		"  selector: {matchLabels: {app: web}}\n  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: registry.example/a}]}}\n"
	b.push("apps/shop", "1.0.0", fluxLayer, map[string]string{"prod/cm.yaml": configMap("shop", "1.0.0")})
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: OCISource, metadata: {name: shop}, spec: {url: "oci://HOST/apps/shop", ref: {semver: 1.x}, interval: 1s}}`)
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: shop}, spec: {sourceRef: {kind: OCISource, name: shop}, path: prod, environment: production}}`)
	b.holds(t, "shop", "1.0.0")
	digest := b.push("apps/shop", "1.1.0", fluxLayer, map[string]string{"prod/cm.yaml": configMap("shop", "1.1.0"), "prod/web.yaml": stuck})
	b.eventually(t, func() error {
		return b.Condition(t.Context(), "shop", v1alpha1.ConditionStalled, v1alpha1.ReasonMarked)
	})
	b.holds(t, "shop", "1.0.0")
	app, err := b.Application(t.Context(), "shop")
	b.must(err)
	stalled := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionStalled)
	if len(app.Status.Marks) != 1 || app.Status.Marks[0].Revision != "1.1.0@"+digest || !strings.Contains(stalled.Message, "keeps no history to revert") {
		t.Errorf("marks %+v, message %q", app.Status.Marks, stalled.Message)
	}
	if app.Status.RevertRequest != nil || app.Status.LastRevert != nil {
		t.Errorf("a revert was asked for: %+v, %+v", app.Status.RevertRequest, app.Status.LastRevert)
	}
	b.push("apps/shop", "1.2.0", fluxLayer, map[string]string{"prod/cm.yaml": configMap("shop", "1.2.0")})
	b.holds(t, "shop", "1.2.0")
	b.eventually(t, func() error { return b.Ready(t.Context(), "shop", "") })
}

func (b *registryBed) signed(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	b.must(err)
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	b.must(err)
	key, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	b.must(err)
	unsigned := b.push("apps/signed", "1.0.0", fluxLayer, map[string]string{"cm.yaml": configMap("signed", "unsigned")})
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: OCISource, metadata: {name: signed}, spec: {url: "oci://HOST/apps/signed", ref: {tag: 1.0.0}, interval: 1s, verify: {keys: [{name: release, pem: `+string(key)+`}]}}}`)
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: signed}, spec: {sourceRef: {kind: OCISource, name: signed}, path: .}}`)
	src := &v1alpha1.OCISource{}
	b.eventually(t, func() error { return b.reason(t, "signed", src, v1alpha1.ReasonRefused) })
	if src.Status.Revision != "" {
		t.Errorf("%s is followed, which is unsigned (%s)", src.Status.Revision, unsigned)
	}
	digest := b.push("apps/signed", "1.0.0", fluxLayer, map[string]string{"cm.yaml": configMap("signed", "signed")})
	b.sign("apps/signed", digest, private)
	b.holds(t, "signed", "signed")
	b.eventually(t, func() error { return b.reason(t, "signed", src, v1alpha1.ReasonSucceeded) })
	if src.Status.Revision != "1.0.0@"+digest || src.Status.FetchedAt == nil {
		t.Errorf("status %+v, want revision 1.0.0@%s", src.Status, digest)
	}
}

func (b *registryBed) chartOverHTTP(t *testing.T) {
	b.charts.publish("1.0.0", b.chart("1.0.0"))
	secret := &corev1.Secret{Data: map[string][]byte{"username": []byte("team"), "password": []byte("pass-word")}}
	secret.Namespace, secret.Name = world.Namespace, "charts"
	b.must(b.Kube.Create(t.Context(), secret))
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: ChartSource, metadata: {name: http}, spec: {repository: "`+b.charts.url+`", chart: hello, version: ">= 1.0.0", interval: 1s, secretRef: {name: charts}}}`)
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: http}, spec: {sourceRef: {kind: ChartSource, name: http}, path: ., targetNamespace: default, helm: {values: {greeting: good morning}}}}`)
	b.holds(t, "http", "good morning 1.0.0")
	b.charts.publish("1.1.0", b.chart("1.1.0"))
	b.holds(t, "http", "good morning 1.1.0")
	src := &v1alpha1.ChartSource{}
	b.must(b.Kube.Get(t.Context(), client.ObjectKey{Namespace: world.Namespace, Name: "http"}, src))
	sum := sha256.Sum256(b.charts.archive("1.1.0"))
	if want := fmt.Sprintf("1.1.0@sha256:%x", sum); src.Status.Revision != want {
		t.Errorf("revision %s, want %s", src.Status.Revision, want)
	}
}

func (b *registryBed) chartInRegistry(t *testing.T) {
	first := b.pushLayer("charts/hello", "2.0.0", chartLayer, b.chart("2.0.0"))
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: ChartSource, metadata: {name: oci}, spec: {repository: "oci://HOST/charts", chart: hello, version: 2.x, interval: 1s}}`)
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: oci}, spec: {sourceRef: {kind: ChartSource, name: oci}, path: ., targetNamespace: default, helm: {}}}`)
	b.holds(t, "oci", "hello 2.0.0")
	// The same version with other content is another revision.
	second := b.pushLayer("charts/hello", "2.0.0", chartLayer, b.chart("2.0.0-again"))
	b.holds(t, "oci", "hello 2.0.0-again")
	b.eventually(t, func() error {
		app, err := b.Application(t.Context(), "oci")
		if err == nil && app.Status.Applied.Revision != "2.0.0@"+second {
			err = fmt.Errorf("applied %s, want 2.0.0@%s after 2.0.0@%s", app.Status.Applied.Revision, second, first)
		}
		return err
	})
	// Pinned to the first digest, the second is refused, and what runs goes on.
	b.apply(t, `{apiVersion: slipway.dev/v1alpha1, kind: ChartSource, metadata: {name: oci}, spec: {repository: "oci://HOST/charts", chart: hello, version: 2.x, interval: 1s, digest: "`+first+`"}}`)
	src := &v1alpha1.ChartSource{}
	b.eventually(t, func() error { return b.reason(t, "oci", src, v1alpha1.ReasonSourceNotReady) })
	b.holds(t, "oci", "hello 2.0.0-again")
}

func (b *registryBed) refused(t *testing.T) {
	for text, want := range map[string]string{
		`{apiVersion: slipway.dev/v1alpha1, kind: OCISource, metadata: {name: x}, spec: {url: "oci://h/x", ref: {tag: a, semver: b}}}`:                                               "exactly one of tag",
		`{apiVersion: slipway.dev/v1alpha1, kind: OCISource, metadata: {name: x}, spec: {url: "oci://h/x", ref: {}}}`:                                                                "exactly one of tag",
		`{apiVersion: slipway.dev/v1alpha1, kind: OCISource, metadata: {name: x}, spec: {url: "https://h/x", ref: {tag: a}}}`:                                                        "spec.url",
		`{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: x}, spec: {sourceRef: {kind: ChartSource, name: x}, path: .}}`:                                       "spec.helm is required",
		`{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: x}, spec: {sourceRef: {kind: Bucket, name: x}, path: .}}`:                                            "spec.sourceRef.kind",
		`{apiVersion: slipway.dev/v1alpha1, kind: ChartSource, metadata: {name: x}, spec: {repository: "https://h/x", chart: x, version: "1", verify: {keys: [{name: a, pem: b}]}}}`: "signatures are kept by registries",
	} {
		if err := b.tryApply(t, text); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// reason fails unless the source is Ready, or not, for a reason.
func (b *registryBed) reason(t *testing.T, name string, src interface {
	client.Object
	ArtifactStatus() *v1alpha1.ArtifactStatus
}, want string,
) error {
	if err := b.Kube.Get(t.Context(), client.ObjectKey{Namespace: world.Namespace, Name: name}, src); err != nil {
		return err
	}
	ready := meta.FindStatusCondition(src.ArtifactStatus().Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason != want {
		return fmt.Errorf("%s is ready %+v, want %s", name, ready, want)
	}
	return nil
}

func (b *registryBed) apply(t *testing.T, text string) {
	t.Helper()
	if err := b.tryApply(t, text); err != nil {
		t.Fatal(err)
	}
}

func (b *registryBed) tryApply(t *testing.T, text string) error {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "HOST", b.Registry.Host())), &object.Object); err != nil {
		t.Fatal(err)
	}
	object.SetNamespace(world.Namespace)
	return b.Kube.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("test"), client.ForceOwnership)
}

// holds waits until the ConfigMap of an Application has a value.
func (b *registryBed) holds(t *testing.T, name, want string) {
	t.Helper()
	b.eventually(t, func() error {
		var found corev1.ConfigMap
		if err := b.Kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, &found); err != nil {
			app, _ := b.Application(t.Context(), name)
			return fmt.Errorf("%w: %+v", err, app.Status.Conditions)
		}
		if found.Data["value"] != want {
			app, _ := b.Application(t.Context(), name)
			return fmt.Errorf("%s holds %q, want %q: %+v", name, found.Data["value"], want, app.Status.Conditions)
		}
		return nil
	})
}

func (b *registryBed) eventually(t *testing.T, f func() error) {
	t.Helper()
	if err := world.Eventually(t.Context(), atMost, f); err != nil {
		t.Fatal(err)
	}
}

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\ndata: {value: \"" + value + "\"}\n"
}

// chart is an archive of the chart hello, as `helm package` makes it.
func (b *registryBed) chart(version string) []byte {
	return b.archive(map[string]string{
		"hello/Chart.yaml":  "apiVersion: v2\nname: hello\nversion: " + version + "\n",
		"hello/values.yaml": "greeting: hello\n",
		"hello/templates/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n" +
			"data: {value: \"{{ .Values.greeting }} {{ .Chart.Version }}\"}\n",
	})
}

func (b *registryBed) archive(files map[string]string) []byte {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	writer := tar.NewWriter(zipped)
	for name, content := range files {
		b.must(writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err := writer.Write([]byte(content))
		b.must(err)
	}
	b.must(writer.Close())
	b.must(zipped.Close())
	return out.Bytes()
}

func (b *registryBed) push(repository, tag, mediaType string, files map[string]string) string {
	return b.pushLayer(repository, tag, mediaType, b.archive(files))
}

func (b *registryBed) pushLayer(repository, tag, mediaType string, content []byte) string {
	return b.pushImage(repository, tag, mutate.Addendum{Layer: static.NewLayer(content, types.MediaType(mediaType))})
}

func (b *registryBed) pushImage(repository, tag string, layer mutate.Addendum) string {
	b.Helper()
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	b.must(err)
	at, err := name.NewTag(b.Registry.Host() + "/" + repository + ":" + tag)
	b.must(err)
	b.must(remote.Write(at, image, remote.WithContext(b.Context())))
	digest, err := image.Digest()
	b.must(err)
	return digest.String()
}

// sign attaches a signature as `cosign sign --key` of version 2 does it.
func (b *registryBed) sign(repository, digest string, key *ecdsa.PrivateKey) {
	b.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`,
		b.Registry.Host()+"/"+repository, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	b.must(err)
	b.pushImage(repository, strings.ReplaceAll(digest, ":", "-")+".sig", mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
}

func (b *registryBed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// chartHost is a chart repository over HTTP, behind a password.
type chartHost struct {
	url      string
	mu       sync.Mutex
	archives map[string][]byte // by version
}

func newChartHost(t *testing.T) *chartHost {
	c := &chartHost{archives: map[string][]byte{}}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *chartHost) publish(version string, archive []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.archives[version] = archive
}

func (c *chartHost) archive(version string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.archives[version]
}

func (c *chartHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if username, password, _ := r.BasicAuth(); username != "team" || password != "pass-word" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/index.yaml" {
		fmt.Fprintln(w, "apiVersion: v1\nentries:\n  hello:")
		for version, archive := range c.archives {
			fmt.Fprintf(w, "    - {version: %s, urls: [%s.tgz], digest: %x}\n", version, version, sha256.Sum256(archive))
		}
		return
	}
	archive, found := c.archives[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".tgz")]
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write(archive)
}
