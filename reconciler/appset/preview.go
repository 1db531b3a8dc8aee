package appset

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Preview says which pull request an Application shows, and at which commit.
type Preview struct {
	Number int64
	Commit gitsource.ObjectID
}

func (p Preview) number() string { return strconv.FormatInt(p.Number, 10) }

// longestSlug is how many characters of a branch are kept, so that a name has room for some before and after it.
const longestSlug = 40

// PullRequests returns an Entry for each pull request to base that there shall be a preview of, by number: those that are
// open, of the repository itself, with all labels, and not too old; of these the newest Max. The order of all does not matter.
func PullRequests(all []forge.PullRequest, want v1alpha1.PullRequestGenerator, base string, now time.Time) []Entry {
	var chosen []forge.PullRequest
	for _, p := range all {
		if shown(p, want, base, now) {
			chosen = append(chosen, p)
		}
	}
	slices.SortFunc(chosen, func(a, b forge.PullRequest) int {
		return cmp.Or(b.Updated.Compare(a.Updated), cmp.Compare(b.Number, a.Number))
	})
	chosen = chosen[:min(len(chosen), want.Max)]
	slices.SortFunc(chosen, func(a, b forge.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	entries := make([]Entry, 0, len(chosen))
	for _, p := range chosen {
		entries = append(entries, entryOf(p))
	}
	return entries
}

// shown reports whether a pull request may have a preview. What a stranger can open never has one.
func shown(p forge.PullRequest, want v1alpha1.PullRequestGenerator, base string, now time.Time) bool {
	if p.State != forge.Open || !p.Own || p.Base != base {
		return false
	}
	for _, label := range want.Labels {
		if !slices.Contains(p.Labels, label) {
			return false
		}
	}
	return now.Sub(p.Updated) <= want.MaxAge.Duration
}

func entryOf(p forge.PullRequest) Entry {
	preview := &Preview{Number: p.Number, Commit: p.HeadCommit}
	name := "pr-" + preview.number()
	return Entry{
		Origin: "pull request " + preview.number(),
		Variables: map[string]string{
			"name": name, "values.number": preview.number(), "values.branch": p.Head, "values.slug": cmp.Or(slug(p.Head), name),
			"values.commit": string(p.HeadCommit), "values.author": p.Author, "values.title": p.Title,
		},
		Preview: preview,
	}
}

// slug makes a DNS label of a branch; empty where nothing is left of it.
func slug(branch string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(branch) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			out.WriteRune(r)
		} else if text := out.String(); text != "" && !strings.HasSuffix(text, "-") {
			out.WriteByte('-')
		}
	}
	text := out.String()
	return strings.TrimRight(text[:min(len(text), longestSlug)], "-")
}

// preview makes an Application one that shows a pull request: it stands where the GitSource of its own name does. The API
// server asks for the ServiceAccount, too; without one it would do with the agent's rights what nobody has approved.
func (a *Application) preview(name string, p Preview) error {
	if a.Spec.ServiceAccountName == "" {
		return errors.New("template.spec.serviceAccountName: pull requests are shown with the rights of a ServiceAccount only; give one")
	}
	a.Preview = &p
	a.Spec.SourceRef = v1alpha1.SourceRef{Kind: v1alpha1.KindGitSource, Name: name}
	return nil
}

// Source is the GitSource of a preview as it is applied: base at the commit of the pull request. It goes with its owner, the
// Application.
func (a Application) Source(set *v1alpha1.ApplicationSet, base *v1alpha1.GitSource, owner metav1.Object) (*unstructured.Unstructured, error) {
	if a.Preview == nil {
		return nil, fmt.Errorf("application %s: it is no preview", a.Name)
	}
	spec := base.Spec.DeepCopy()
	spec.Branch, spec.Tag, spec.Semver, spec.Webhook = "", "", "", nil
	spec.Commit = string(a.Preview.Commit)
	if spec.Verify != nil {
		spec.Verify.Mode = v1alpha1.VerifyHead // there is no tag, so that the commit itself has to be signed
	}
	controls := true
	object, err := templated(&v1alpha1.GitSource{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.KindGitSource},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, Name: a.Name,
			Labels: map[string]string{manifests.LabelApplicationSet: set.Name, manifests.LabelPullRequest: a.Preview.number()},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion().String(), Kind: "Application", Name: owner.GetName(), UID: owner.GetUID(), Controller: &controls,
			}},
		},
		Spec: *spec,
	})
	if err != nil {
		return nil, fmt.Errorf("gitsource %s: %w", a.Name, err)
	}
	return object, nil
}
