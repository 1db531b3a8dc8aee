package apps

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/gitea"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// stage is a set of previews, of a repository on a Gitea: robin works there, reader is the agent, and a stranger may read.
type stage struct {
	family
	host                    *gitea.Host
	robin, reader, stranger gitea.User
	repo                    gitea.Repository
	clone                   *world.Repository
	label                   int64
}

// previewSpec is that of the set; two previews at most.
const previewSpec = `  pullRequests: {host: gitea, labels: [preview], max: 2, interval: 10s}
  template:
    metadata: {name: 'previews-{{name}}'}
    spec:
      sourceRef: {name: previews-base}
      path: deploy
      serviceAccountName: previews
      targetNamespace: 'previews-{{values.number}}'
      substitute: {variables: {NUMBER: '{{values.number}}', SLUG: '{{values.slug}}'}}
      retryInterval: 1s
`

func newStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	s := &stage{family: family{story{t, "previews"}}}
	ctx := t.Context()
	var err error
	s.host, err = gitea.Start(ctx, gitea.Options{Dir: filepath.Join(t.TempDir(), "gitea"), Log: t.Output()})
	s.must(err)
	t.Cleanup(s.host.Kill)
	for name, into := range map[string]*gitea.User{"robin": &s.robin, "reader": &s.reader, "stranger": &s.stranger} {
		*into, err = s.host.User(ctx, name)
		s.must(err)
	}
	s.must(s.host.Org(ctx, "port"))
	s.repo, err = s.host.Repository(ctx, "port", "shop", s.robin)
	s.must(err)
	for _, u := range []gitea.User{s.reader, s.stranger} {
		s.must(s.host.Call(ctx, s.host.Admin, http.MethodPut, "repos/"+s.repo.Name+"/collaborators/"+u.Name, map[string]any{"permission": "read"}, nil))
	}
	s.clone, err = shared.Clone(ctx, "previews", s.repo.URL, &gogit.Auth{Username: s.robin.Name, Password: policy.NewSecret(s.robin.Token)})
	s.must(err)
	_, err = s.clone.Commit(ctx, "Begin the shop",
		world.Write("deploy/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: 'previews-${NUMBER}', annotations: {slipway.dev/prune: enabled}}\n"), shop("main"))
	s.must(err)
	var label struct{ ID int64 }
	s.must(s.host.Call(ctx, s.robin, http.MethodPost, "repos/"+s.repo.Name+"/labels", map[string]string{"name": "preview", "color": "#00ff00"}, &label))
	s.label = label.ID
	s.allow()
	s.commit("Start previews", s.declared(previewSpec), world.Write("clusters/demo/previews-base.yaml", fmt.Sprintf(
		"apiVersion: slipway.dev/v1alpha1\nkind: GitSource\nmetadata: {name: previews-base, namespace: slipway-system}\nspec: {url: '%s', interval: 2s, secretRef: {name: previews-login}}\n", s.repo.URL,
	)))
	return s
}

// allow makes the agent's login at the host, and the account that previews act as.
func (s *stage) allow() {
	ctx := s.Context()
	token, err := s.host.Token(ctx, s.reader, "read:repository")
	s.must(err)
	meta := metav1.ObjectMeta{Namespace: world.Namespace, Name: "previews"}
	s.must(shared.Kube.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "previews-login"},
		StringData: map[string]string{"username": s.reader.Name, "password": token},
	}))
	s.must(shared.Kube.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}))
	s.must(shared.Kube.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "previews"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"", "batch"}, Resources: []string{"namespaces", "configmaps", "jobs"}, Verbs: []string{"get", "create", "patch", "delete"}},
	}}))
	s.must(shared.Kube.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "previews"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "previews"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "previews", Namespace: world.Namespace}},
	}))
}

// shop is the file with what the shop says.
func shop(word string) gitsource.Change {
	return world.Write("deploy/settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {value: '"+word+" by ${SLUG}'}\n")
}

// work pushes a commit to a branch, which begins at main.
func (s *stage) work(branch string, changes ...gitsource.Change) gitsource.ObjectID {
	s.Helper()
	tip := gitsource.ObjectID("")
	revision, err := s.clone.Store.Fetch(s.Context(), "refs/heads/"+branch)
	switch {
	case err == nil:
		tip = revision.ID
	case !errors.Is(err, gitsource.ErrNotFound):
		s.Fatal(err)
	}
	parent := tip
	if parent == "" {
		parent, err = s.clone.Tip(s.Context())
		s.must(err)
	}
	id, err := s.clone.CommitOn(s.Context(), parent, "Work on "+branch, changes...)
	s.must(err)
	s.must(s.clone.Store.Push(s.Context(), "refs/heads/"+branch, tip, id))
	return id
}

// propose opens a pull request, labelled if asked for, and returns its number.
func (s *stage) propose(as gitea.User, head string, labelled bool) int64 {
	s.Helper()
	var made struct{ Number int64 }
	s.wait(func() error { // the host finds out about a push by and by
		return s.host.Call(s.Context(), as, http.MethodPost, "repos/"+s.repo.Name+"/pulls", map[string]string{"head": head, "base": "main", "title": "Let " + head + " in"}, &made)
	})
	if labelled {
		s.mark(made.Number)
	}
	return made.Number
}

// mark gives a pull request the label, which also makes it the one that was updated last.
func (s *stage) mark(number int64) {
	s.Helper()
	s.must(s.host.Call(s.Context(), s.robin, http.MethodPost, fmt.Sprintf("repos/%s/issues/%d/labels", s.repo.Name, number), map[string][]int64{"labels": {s.label}}, nil))
}

// look has the agent ask the host now.
func (s *stage) look() {
	s.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, manifests.AnnotationReconcile, time.Now().Format(time.RFC3339Nano))
	s.must(shared.Kube.Patch(s.Context(), s.set(), client.RawPatch(types.MergePatchType, patch), client.FieldOwner("kubectl-annotate")))
}

// shows waits until the preview of a pull request has the word.
func (s *stage) shows(number int64, word string) {
	s.Helper()
	s.wait(func() error { return s.of(number).is("settings", word) })
}

// of is the story of one preview, whose name is also that of its namespace but for the "pr-".
func (s *stage) of(number int64) story {
	return story{s.T, fmt.Sprintf("previews-%d", number)}
}

func preview(number int64) string { return fmt.Sprintf("pr-%d", number) }

// vanished waits until nothing is left of a preview.
func (s *stage) vanished(number int64) {
	s.Helper()
	s.wait(func() error {
		var source v1alpha1.GitSource
		err := shared.Kube.Get(s.Context(), s.key("previews-"+preview(number)), &source)
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("its GitSource is there, %v", err)
		}
		_, err = shared.clients.CoreV1().Namespaces().Get(s.Context(), s.of(number).name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("its namespace is there, %v", err)
		}
		return nil
	})
}

// A preview comes with its pull request, follows it, and goes with it; strangers have none; never are there more than two.
func TestPreviews(t *testing.T) {
	s := newStage(t)
	s.told(v1alpha1.ReasonSucceeded, "0 applications")

	s.work("feature/Hello", shop("hello"))
	one := s.propose(s.robin, "feature/Hello", true)
	s.work("quiet", shop("quiet"))
	two := s.propose(s.robin, "quiet", false)
	s.fork("forked", shop("loot"))
	three := s.propose(s.stranger, "stranger:forked", true)
	s.look()
	s.are(preview(one))
	s.shows(one, "hello by feature-hello")
	app := s.application(preview(one))
	if app.Labels[manifests.LabelPullRequest] != fmt.Sprint(one) || app.Spec.SourceRef.Name != app.Name || app.Spec.ServiceAccountName != "previews" {
		t.Errorf("%+v %+v", app.Labels, app.Spec)
	}

	// Nobody asks for this one: it comes by the interval.
	s.work("feature/Hello", shop("hello again"))
	s.shows(one, "hello again by feature-hello")

	s.foreign(two)
	s.bounded(one, two)
	s.hostDown(one, two)
	s.fails(one)
	s.merged(one, two)
	s.vanished(three)
}

// fork pushes to a repository of the stranger's own.
func (s *stage) fork(branch string, changes ...gitsource.Change) {
	s.Helper()
	ctx := s.Context()
	s.must(s.host.Call(ctx, s.stranger, http.MethodPost, "repos/"+s.repo.Name+"/forks", map[string]string{"name": "shop"}, nil))
	fork, err := shared.Clone(ctx, "previews-fork", s.host.URL+"/stranger/shop.git", &gogit.Auth{Username: s.stranger.Name, Password: policy.NewSecret(s.stranger.Token)})
	s.must(err)
	s.wait(func() error {
		tip, err := fork.Tip(ctx)
		if err != nil {
			return err
		}
		id, err := fork.CommitOn(ctx, tip, "Mine", changes...)
		if err != nil {
			return err
		}
		return fork.Store.Push(ctx, "refs/heads/"+branch, "", id)
	})
}

// foreign: a GitSource of somebody else stays as it is, and no preview is made of it.
func (s *stage) foreign(two int64) {
	s.Helper()
	other := &v1alpha1.GitSource{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "previews-" + preview(two)}, Spec: v1alpha1.GitSourceSpec{URL: shared.URL, Branch: "main"},
	}
	s.must(shared.Kube.Create(s.Context(), other))
	s.mark(two)
	s.look()
	s.told(v1alpha1.ReasonEntriesFailed, "1 of 2 entries failed", fmt.Sprintf("gitsource %s exists and is not of this preview", other.Name))
	if _, err := shared.Application(s.Context(), other.Name); !apierrors.IsNotFound(err) {
		s.Errorf("the application: %v", err)
	}
	s.must(shared.Kube.Delete(s.Context(), other))
	s.look()
	s.wait(func() error { return s.saying(v1alpha1.ReasonSucceeded, "2 applications") })
	s.shows(two, "quiet by quiet")
}

// bounded: a third takes the room of the one that was touched longest ago, which comes back when the third is closed.
func (s *stage) bounded(one, two int64) {
	s.Helper()
	s.work("third", shop("third"))
	third := s.propose(s.robin, "third", true)
	s.look()
	s.are(preview(two), preview(third))
	s.vanished(one)
	s.must(s.host.Call(s.Context(), s.robin, http.MethodPatch, fmt.Sprintf("repos/%s/pulls/%d", s.repo.Name, third), map[string]string{"state": "closed"}, nil))
	s.look()
	s.are(preview(one), preview(two))
	s.vanished(third)
	s.shows(one, "hello again by feature-hello")
}

// hostDown: what cannot be read says nothing about pull requests.
func (s *stage) hostDown(one, two int64) {
	s.Helper()
	before := s.application(preview(one)).UID
	s.host.Kill()
	s.look()
	s.told(v1alpha1.ReasonPullRequestsUnread, "list the open pull requests to main", "connection refused", "all applications stay as they are")
	children, err := s.children()
	if err != nil || strings.Join(children, " ") != preview(one)+" "+preview(two) {
		s.Errorf("%v, %v", children, err)
	}
	s.must(s.host.Restart(s.Context()))
	s.are(preview(one), preview(two)) // by itself
	if s.application(preview(one)).UID != before {
		s.Error("the preview was made again")
	}
}

// fails: what a preview showed last comes back, the status says what to do, and nothing is pushed.
func (s *stage) fails(number int64) {
	s.Helper()
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: check}\nspec:\n  backoffLimit: 0\n  template:\n    spec: {restartPolicy: Never, nodeName: " + node + ", containers: [{name: main, image: check}]}\n"
	bad := s.work("feature/Hello", shop("broken"), world.Write("deploy/check.yaml", job))
	s.look()
	s.of(number).end("check", 1)
	s.wait(func() error {
		return saying(s.Context(), "previews-"+preview(number), v1alpha1.ReasonMarked, bad.Short(), "the last healthy version runs",
			fmt.Sprintf("it is the preview of pull request %d; push a corrected commit to its branch", number))
	})
	s.shows(number, "hello again by feature-hello")
	revision, err := s.clone.Store.Fetch(s.Context(), "refs/heads/feature/Hello")
	refs, listErr := s.clone.Store.Refs(s.Context())
	if err != nil || listErr != nil || revision.ID != bad {
		s.Errorf("the branch is at %s, %v, %v", revision.ID, err, listErr)
	}
	for ref := range refs {
		if strings.HasPrefix(ref, "refs/heads/revert/") {
			s.Errorf("%s was pushed", ref)
		}
	}
	s.work("feature/Hello", shop("mended"), world.Remove("deploy/check.yaml"))
	s.look()
	s.shows(number, "mended by feature-hello")
}

// merged: it moves the source, which is what tells of it.
func (s *stage) merged(one, two int64) {
	s.Helper()
	s.are(preview(one), preview(two))
	s.wait(func() error { // the host looks for conflicts first
		return s.host.Call(s.Context(), s.robin, http.MethodPost, fmt.Sprintf("repos/%s/pulls/%d/merge", s.repo.Name, one), map[string]string{"Do": "merge"}, nil)
	})
	s.are(preview(two))
	s.vanished(one)
	s.commit("No more previews", world.Remove("clusters/demo/previews.yaml"))
	s.vanished(two)
}

// What would let a pull request do more than it may, or stay, is refused by the API server.
func TestPreviewsAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, pulls, source, account, more, want string }{
		{"no-account", "", "", "''", "", "pullRequests needs template.spec.serviceAccountName, without variables: nobody has approved"},
		{"any-account", "", "", "'{{values.branch}}'", "", "pullRequests needs template.spec.serviceAccountName, without variables"},
		{"oci", "", "{kind: OCISource, name: a}", "", "", "pullRequests needs a GitSource"},
		{"any-source", "", "{name: '{{name}}'}", "", "", "template.spec.sourceRef.name has no variables"},
		{"preserve", "", "", "", "preserve: true", "preserve would keep the previews"},
		{"no-host", "{labels: [a]}", "", "", "", "host: Required value"},
		{"other-host", "{host: github}", "", "", "", `supported values: "gitea"`},
		{"hasty", "{host: gitea, interval: 9s}", "", "", "", "at least 10s"},
		{"young", "{host: gitea, maxAge: 1s}", "", "", "", "at least 1m"},
		{"many", "{host: gitea, max: 101}", "", "", "", "less than or equal to 100"},
		{"few", "{host: gitea, max: 0}", "", "", "", "greater than or equal to 1"},
		{"fine", "", "", "", "", ""},
	} {
		text := fmt.Sprintf("apiVersion: slipway.dev/v1alpha1\nkind: ApplicationSet\nmetadata: {name: %s, namespace: slipway-system}\nspec:\n  pullRequests: %s\n  %s\n  template: {spec: {sourceRef: %s, path: a, serviceAccountName: %s}}\n",
			c.name, cmp.Or(c.pulls, "{host: gitea}"), c.more, cmp.Or(c.source, "{name: a}"), cmp.Or(c.account, "previews"))
		err := create(t, text)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
