package sources

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestSources has the real loops follow repositories of a real Git host, and the API server judge the specs.
func TestSources(t *testing.T) {
	b := newSourceBed(t)
	t.Run("together", func(t *testing.T) {
		for name, tell := range map[string]func(*bed){
			"the API server refuses what says two things":  (*bed).twoThings,
			"a tag, a range and a commit":                  (*bed).follows,
			"a failed version of a tag waits for a person": (*bed).failedTag,
			"signed commits":                               (*bed).signed,
			"signed tags":                                  (*bed).signedTags,
			"a failed version of signed commits":           (*bed).failedSigned,
			"a revert that is signed":                      (*bed).revertSigned,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tell(b.in(t))
			})
		}
	})
	// Alone, for it measures how long things take.
	t.Run("fifty repositories hang or are broken", func(t *testing.T) { b.in(t).crowd() })
}

func (b *bed) twoThings() {
	id := strings.Repeat("a", 40)
	for name, spec := range map[string]v1alpha1.GitSourceSpec{
		"branch-tag":    {URL: "https://git.example/x", Branch: "main", Tag: "v1"},
		"tag-semver":    {URL: "https://git.example/x", Tag: "v1", Semver: "1.x"},
		"semver-commit": {URL: "https://git.example/x", Semver: "1.x", Commit: id},
		"all":           {URL: "https://git.example/x", Branch: "main", Tag: "v1", Semver: "1.x", Commit: id},
	} {
		if err := b.kube.Create(b.Context(), b.source(name, spec)); err == nil || !strings.Contains(err.Error(), "exclude each other") {
			b.Errorf("%s: %v", name, err)
		}
	}
	for name, spec := range map[string]v1alpha1.GitSourceSpec{
		"short-commit": {URL: "https://git.example/x", Commit: "abc1234"},
		"login-in-url": {URL: "https://user:password@git.example/x"},
	} {
		if err := b.kube.Create(b.Context(), b.source(name, spec)); err == nil || !strings.Contains(err.Error(), "should match") {
			b.Errorf("%s: %v", name, err)
		}
	}
}

func (b *bed) follows() {
	repo := b.repository("follows")
	one := repo.push(configMap("1"))
	repo.tag("v1.0.0")
	b.must(b.kube.Create(b.Context(), b.source("nothing-said", v1alpha1.GitSourceSpec{URL: repo.url})))
	b.must(b.kube.Create(b.Context(), b.source("range", v1alpha1.GitSourceSpec{URL: repo.url, Semver: "^1"})))
	b.must(b.kube.Create(b.Context(), b.source("tagged", v1alpha1.GitSourceSpec{URL: repo.url, Tag: "v1.0.0"})))
	b.must(b.kube.Create(b.Context(), b.source("one-commit", v1alpha1.GitSourceSpec{URL: repo.url, Commit: one})))
	b.must(b.kube.Create(b.Context(), b.source("no-range", v1alpha1.GitSourceSpec{URL: repo.url, Semver: "newest"})))
	b.must(b.kube.Create(b.Context(), b.source("no-name", v1alpha1.GitSourceSpec{URL: repo.url, Branch: "a..b"})))
	b.at("nothing-said", "refs/heads/main@sha1:"+one)
	b.at("range", "refs/tags/v1.0.0@sha1:"+one)
	b.at("tagged", "refs/tags/v1.0.0@sha1:"+one)
	b.at("one-commit", "@sha1:"+one)
	b.refused("no-range", v1alpha1.ReasonSourceInvalid, `spec.semver "newest"`, "write for example")
	b.refused("no-name", v1alpha1.ReasonSourceInvalid, `spec.branch "a..b"`)

	two := repo.push(configMap("2"))
	repo.tag("-a", "-m", "two", "v1.1.0")
	repo.tag("v2.0.0")
	for _, name := range []string{"nothing-said", "range", "tagged", "one-commit"} {
		b.look(name)
	}
	b.at("nothing-said", "refs/heads/main@sha1:"+two)
	src := b.at("range", "refs/tags/v1.1.0@sha1:"+two)
	if message := conditions.GetMessage(&src, v1alpha1.ConditionReady); !strings.Contains(message, "refs/tags/v1.1.0") {
		b.Errorf("it does not say which tag: %s", message)
	}
	b.at("tagged", "refs/tags/v1.0.0@sha1:"+one)
	b.at("one-commit", "@sha1:"+one)
	repo.git("push", "-q", "origin", ":refs/tags/v1.0.0")
	b.look("tagged")
	src = b.refused("tagged", v1alpha1.ReasonSourceNotReady, "refs/tags/v1.0.0", "not found")
	if src.Status.Revision != "refs/tags/v1.0.0@sha1:"+one {
		b.Errorf("the last revision is forgotten: %q", src.Status.Revision)
	}
}

// failedTag: reverts go to branches. Where none is followed, the healthy version comes back and that is said.
func (b *bed) failedTag() {
	repo := b.repository("failed-tag")
	repo.push(configMap("1"))
	repo.tag("v1.0.0")
	b.must(b.kube.Create(b.Context(), b.source("failed-tag", v1alpha1.GitSourceSpec{URL: repo.url, Semver: "1.x"})))
	app := b.application("failed-tag")
	b.condition(app, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded)
	repo.push(configMap("1") + "---\n" + neverReady)
	repo.tag("v1.1.0")
	b.look("failed-tag")
	message := b.condition(app, v1alpha1.ConditionStalled, v1alpha1.ReasonMarked)
	for _, word := range []string{"the last healthy version runs", "follows the tags in the range 1.x", "only be pushed to a branch"} {
		if !strings.Contains(message, word) {
			b.Errorf("message %q does not say %q", message, word)
		}
	}
	if refs := repo.git("ls-remote", "origin"); strings.Contains(refs, "revert/") || app.Status.RevertRequest != nil || conditions.Has(app, v1alpha1.ConditionReverting) {
		b.Errorf("a revert was tried: %+v\n%s", app.Status.RevertRequest, refs)
	}
	repo.push(configMap("2"))
	repo.tag("v1.1.1")
	b.look("failed-tag")
	b.condition(app, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded)
	if !strings.HasPrefix(app.Status.Healthy.Revision, "refs/tags/v1.1.1@") {
		b.Errorf("healthy is %s", app.Status.Healthy.Revision)
	}
}

// condition waits until a condition of an Application is True for a reason, and returns its message.
func (b *bed) condition(app *v1alpha1.Application, kind, reason string) string {
	b.Helper()
	b.must(world.Eventually(b.Context(), atMost, func() error {
		if err := b.kube.Get(b.Context(), client.ObjectKeyFromObject(app), app); err != nil {
			return err
		}
		if !conditions.IsTrue(app, kind) || conditions.GetReason(app, kind) != reason {
			return fmt.Errorf("application %s: %+v", app.Name, app.Status.Conditions)
		}
		return nil
	}))
	return conditions.GetMessage(app, kind)
}

// application makes an Application of a source's name, in a namespace of its own.
func (b *bed) application(name string) *v1alpha1.Application {
	b.Helper()
	namespace := &corev1.Namespace{}
	namespace.Name = name
	b.must(b.kube.Create(b.Context(), namespace))
	app := &v1alpha1.Application{Spec: v1alpha1.ApplicationSpec{
		SourceRef: v1alpha1.SourceRef{Name: name}, Path: "app", TargetNamespace: name, Environment: "production",
	}}
	app.Namespace, app.Name = world.Namespace, name
	b.must(b.kube.Create(b.Context(), app))
	return app
}

// value waits until the ConfigMap of an Application has a value.
func (b *bed) value(app *v1alpha1.Application, want string) {
	b.Helper()
	b.must(world.Eventually(b.Context(), atMost, func() error {
		var live corev1.ConfigMap
		err := b.kube.Get(b.Context(), client.ObjectKey{Namespace: app.Spec.TargetNamespace, Name: "app"}, &live)
		if err == nil && live.Data["value"] != want {
			err = fmt.Errorf("the value is %q, want %q", live.Data["value"], want)
		}
		return err
	}))
}

func configMap(value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {value: \"" + value + "\"}\n"
}

// neverReady fails by its own deadline: there is no node.
const neverReady = `apiVersion: apps/v1
kind: Deployment
metadata: {name: never-ready}
spec:
  progressDeadlineSeconds: 1
  selector: {matchLabels: {app: never-ready}}
  template:
    metadata: {labels: {app: never-ready}}
    spec:
      containers: [{name: web, image: registry.example/web}]
`

// signed: what is not signed by somebody who may is not applied, and what was before stays.
func (b *bed) signed() {
	repo := b.repository("signed")
	kim, stranger := repo.key("kim"), repo.key("stranger")
	b.secret("signers", map[string][]byte{"allowed_signers": []byte("kim@example.com " + kim.public + "\n")})
	first := repo.push(configMap("1"))
	spec := v1alpha1.GitSourceSpec{URL: repo.url, Verify: &v1alpha1.Verification{SecretRef: v1alpha1.LocalRef{Name: "signers"}}}
	b.must(b.kube.Create(b.Context(), b.source("signed", spec)))
	app := b.application("signed")
	src := b.refused("signed", v1alpha1.ReasonSourceUnverified, first, "it is not signed", "no revision was verified before")
	if src.Status.Revision != "" || src.Status.VerifiedBy != "" {
		b.Errorf("status: %+v", src.Status)
	}
	repo.signWith(kim)
	good := repo.push(configMap("2"), "-S")
	b.look("signed")
	src = b.at("signed", "refs/heads/main@sha1:"+good)
	if src.Status.VerifiedBy != "kim@example.com (SSH key "+kim.fingerprint+")" {
		b.Errorf("verified by %q", src.Status.VerifiedBy)
	}
	b.condition(app, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded)
	b.value(app, "2")

	repo.signWith(stranger)
	repo.push(configMap("3"), "-S")
	b.look("signed")
	src = b.refused("signed", v1alpha1.ReasonSourceUnverified, stranger.fingerprint, "not among the allowed signers", good+" is kept")
	if src.Status.Revision != "refs/heads/main@sha1:"+good || src.Status.VerifiedBy == "" {
		b.Errorf("the verified revision is forgotten: %+v", src.Status)
	}
	// The agent heals what it last had right.
	live := &corev1.ConfigMap{}
	live.Namespace, live.Name = app.Spec.TargetNamespace, "app"
	b.must(b.kube.Patch(b.Context(), live, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"value":"by hand"}}`))))
	b.value(app, "2")

	repo.signWith(kim)
	next := repo.push(configMap("4"), "-S")
	b.look("signed")
	b.at("signed", "refs/heads/main@sha1:"+next)
	b.value(app, "4")

	// Signers that do not include those of the kept revision: it may not be applied any more.
	b.secret("others", map[string][]byte{"allowed_signers": []byte("robin@example.com " + repo.key("robin").public + "\n")})
	b.change("signed", `{"spec":{"verify":{"secretRef":{"name":"others"}}}}`)
	if src = b.refused("signed", v1alpha1.ReasonSourceUnverified, kim.fingerprint); src.Status.Revision != "" {
		b.Errorf("%s is kept, though nobody who counts has signed it", src.Status.Revision)
	}
	b.secret("odd", map[string][]byte{"id.pub": []byte(kim.public)})
	b.change("signed", `{"spec":{"verify":{"secretRef":{"name":"odd"}}}}`)
	b.refused("signed", v1alpha1.ReasonSourceInvalid, "secret odd", "id.pub: want the name allowed_signers")
}

// signedTags: a tag vouches for its commit under its name.
func (b *bed) signedTags() {
	repo := b.repository("signed-tags")
	kim := repo.key("kim")
	b.secret("tag-signers", map[string][]byte{"allowed_signers": []byte("kim@example.com " + kim.public + "\n")})
	repo.signWith(kim)
	one := repo.push(configMap("1"))
	repo.tag("-s", "-m", "One", "v1.0.0")
	verify := func(mode v1alpha1.VerificationMode) *v1alpha1.Verification {
		return &v1alpha1.Verification{Mode: mode, SecretRef: v1alpha1.LocalRef{Name: "tag-signers"}}
	}
	b.must(b.kube.Create(b.Context(), b.source("tag-only", v1alpha1.GitSourceSpec{URL: repo.url, Semver: "1.x", Verify: verify(v1alpha1.VerifyTag)})))
	b.must(b.kube.Create(b.Context(), b.source("tag-and-head", v1alpha1.GitSourceSpec{URL: repo.url, Semver: "1.x", Verify: verify(v1alpha1.VerifyTagAndHead)})))
	b.at("tag-only", "refs/tags/v1.0.0@sha1:"+one)
	b.refused("tag-and-head", v1alpha1.ReasonSourceUnverified, "commit "+one, "it is not signed")
	two := repo.push(configMap("2"), "-S")
	repo.tag("v1.1.0")
	b.look("tag-only")
	b.refused("tag-only", v1alpha1.ReasonSourceUnverified, "refs/tags/v1.1.0", "lightweight tag", one+" is kept")
	repo.tag("-s", "-m", "Two", "v1.1.1")
	b.look("tag-only")
	b.look("tag-and-head")
	b.at("tag-only", "refs/tags/v1.1.1@sha1:"+two)
	b.at("tag-and-head", "refs/tags/v1.1.1@sha1:"+two)
	// The signed tag of an old version under the name of a new one.
	repo.git("push", "-q", "origin", "refs/tags/v1.0.0:refs/tags/v1.9.0")
	b.look("tag-only")
	b.refused("tag-only", v1alpha1.ReasonSourceUnverified, "refs/tags/v1.9.0", "made for another name")
	err := b.kube.Create(b.Context(), b.source("tag-of-branch", v1alpha1.GitSourceSpec{URL: repo.url, Branch: "main", Verify: verify(v1alpha1.VerifyTag)}))
	if err == nil || !strings.Contains(err.Error(), "need a tag or a semver range") {
		b.Errorf("a branch with the mode Tag: %v", err)
	}
}

// failedSigned: the agent's key does not count here, so it does not push what would not be applied.
func (b *bed) failedSigned() {
	repo := b.repository("failed-signed")
	kim := repo.key("kim")
	b.secret("failed-signers", map[string][]byte{"allowed_signers": []byte("kim@example.com " + kim.public + "\n")})
	repo.signWith(kim)
	repo.push(configMap("1"), "-S")
	spec := v1alpha1.GitSourceSpec{URL: repo.url, Verify: &v1alpha1.Verification{SecretRef: v1alpha1.LocalRef{Name: "failed-signers"}}}
	b.must(b.kube.Create(b.Context(), b.source("failed-signed", spec)))
	app := b.application("failed-signed")
	b.condition(app, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded)
	bad := repo.push(configMap("1")+"---\n"+neverReady, "-S")
	b.look("failed-signed")
	message := b.condition(app, v1alpha1.ConditionStalled, v1alpha1.ReasonMarked)
	if !strings.Contains(message, "takes signed commits only") || !strings.Contains(message, "not among the allowed signers") {
		b.Errorf("it does not say why: %s", message)
	}
	if tip := strings.Fields(repo.git("ls-remote", "origin", "refs/heads/main"))[0]; tip != bad {
		b.Errorf("the branch is at %s, not at %s", tip, bad)
	}
}
