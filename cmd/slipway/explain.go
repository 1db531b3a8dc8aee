package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/slipway-cd/slipway/cmd/internal/origin"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// explanation is where an object comes from and who owns its fields.
type explanation struct {
	Object string `json:"object"`
	// MadeBy are the owners that lead from the object to the one that Git asks for, outermost last.
	MadeBy      []string          `json:"madeBy,omitempty"`
	Application string            `json:"application,omitempty"`
	Environment string            `json:"environment,omitempty"`
	Commit      *explainedCommit  `json:"commit,omitempty"` // what is applied
	Origin      *origin.Origin    `json:"origin,omitempty"`
	Changed     *explainedCommit  `json:"changed,omitempty"` // the last change to the file
	Drift       []string          `json:"drift"`
	Fields      []fieldOwner      `json:"fields"`
	Unknown     map[string]string `json:"unknown,omitempty"` // what could not be told, and why
}

// explainedCommit is a commit of the environment repo.
type explainedCommit struct {
	ID      string    `json:"id"`
	Author  string    `json:"author"`
	At      time.Time `json:"at"`
	Subject string    `json:"subject"`
}

// fieldOwner is one field that a manager owns.
type fieldOwner struct {
	Field       string     `json:"field"`
	Manager     string     `json:"manager"`
	Operation   string     `json:"operation"`
	Subresource string     `json:"subresource,omitempty"`
	At          *time.Time `json:"at,omitempty"`
}

func explainCommand(g *globals) *cobra.Command {
	var namespace, apps string
	cmd := &cobra.Command{
		Use:   "explain KIND/NAME",
		Short: "Say where an object comes from and who owns its fields",
		Long: `Say where an object comes from: which Application owns it, at which commit and by whom, from
which file of the environment repo, and who changed that file last; which manager owns
each of its fields; and what differs from Git. KIND is anything that kubectl takes: deploy,
deployments.apps, cm. Of what a controller made, a Pod say, that which it was made of is
explained.

The exit code is 3 if the object belongs to no Application.`,
		Example: `  slipway explain deploy/web -n shop
  slipway explain pod/web-5d4f7c8b9-x2x7k -n shop
  slipway explain clusterrole/shop -o json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			kind, name, found := strings.Cut(given[0], "/")
			if !found || kind == "" || name == "" || strings.Contains(name, "/") {
				return usage("%s: want KIND/NAME, as deploy/web", given[0])
			}
			g.namespace = apps
			e, err := g.explain(cmd.Context(), kind, namespace, name)
			if err != nil {
				return err
			}
			if err := g.print(e, func(w io.Writer) { printExplanation(w, g.terminal, e) }); err != nil {
				return err
			}
			if e.Application == "" {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the object")
	cmd.Flags().StringVar(&apps, "app-namespace", "slipway-system", "namespace of the Applications")
	return cmd
}

func (g *globals) explain(ctx context.Context, kind, namespace, name string) (*explanation, error) {
	kube, config, err := g.kube()
	if err != nil {
		return nil, err
	}
	object, err := find(ctx, kube, config, kind, namespace, name)
	if err != nil {
		return nil, err
	}
	e := &explanation{Object: manifests.RefOf(object).String(), Drift: []string{}, Unknown: map[string]string{}}
	if e.Fields, err = fieldOwners(object.GetManagedFields()); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Object, err)
	}
	object = e.climb(ctx, kube, object)
	label := object.GetLabels()[manifests.LabelApplication]
	if label == "" {
		return e, nil
	}
	app := &v1alpha1.Application{}
	if err := kube.Get(ctx, client.ObjectKey{Namespace: g.namespace, Name: label}, app); err != nil {
		return nil, fmt.Errorf("%s: its label names application %s: %w (see --app-namespace)", e.Object, label, err)
	}
	e.Application, e.Environment = app.Name, app.Spec.Environment
	if err := g.trackDown(ctx, kube, config, e, app, manifests.RefOf(object)); err != nil {
		e.Unknown["origin"] = err.Error()
	}
	return e, nil
}

// find reads an object by any of the names of its kind.
func find(ctx context.Context, kube client.Client, config *rest.Config, kind, namespace, name string) (*unstructured.Unstructured, error) {
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	cached := memory.NewMemCacheClient(found)
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
	full, resource := schema.ParseResourceArg(strings.ToLower(kind))
	gvk, err := mapper.KindFor(resource.WithVersion(""))
	if full != nil && err != nil {
		gvk, err = mapper.KindFor(*full)
	}
	if err != nil {
		return nil, fmt.Errorf("kind %s: %w (see 'kubectl api-resources')", kind, err)
	}
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, fmt.Errorf("kind %s: %w", kind, err)
	}
	key := client.ObjectKey{Name: name}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		key.Namespace = namespace
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(gvk)
	if err := kube.Get(ctx, key, object); err != nil {
		return nil, fmt.Errorf("%s %s: %w", gvk.Kind, strings.TrimPrefix(key.String(), "/"), err)
	}
	return object, nil
}

// climb follows owners up to the first object that Git asks for.
func (e *explanation) climb(ctx context.Context, kube client.Client, object *unstructured.Unstructured) *unstructured.Unstructured {
	const deepest = 10
	for range deepest {
		owner := metav1.GetControllerOf(object)
		if object.GetLabels()[manifests.LabelApplication] != "" || owner == nil {
			break
		}
		above := &unstructured.Unstructured{}
		above.SetAPIVersion(owner.APIVersion)
		above.SetKind(owner.Kind)
		if err := kube.Get(ctx, client.ObjectKey{Namespace: object.GetNamespace(), Name: owner.Name}, above); err != nil {
			e.Unknown["owner"] = fmt.Sprintf("%s %s: %v", owner.Kind, owner.Name, err)
			break
		}
		object = above
		e.MadeBy = append(e.MadeBy, manifests.RefOf(object).String())
	}
	return object
}

// trackDown finds in Git where what is applied comes from, and asks the API server what differs from it.
func (g *globals) trackDown(ctx context.Context, kube client.Client, config *rest.Config, e *explanation, app *v1alpha1.Application, ref manifests.Ref) (err error) {
	if app.Status.Applied == nil {
		return errors.New("nothing is applied yet")
	}
	if ref := app.Spec.SourceRef; ref.IsArtifact() {
		return fmt.Errorf("it comes from the %s %s at %s, not from a commit", ref.Kind, ref.Name, app.Status.Applied.Revision)
	}
	revision, err := gitsource.ParseRevision(app.Status.Applied.Revision)
	if err != nil {
		return err
	}
	var source v1alpha1.GitSource
	if err := kube.Get(ctx, client.ObjectKey{Namespace: app.Namespace, Name: app.Spec.SourceRef.Name}, &source); err != nil {
		return fmt.Errorf("gitsource %s: %w", app.Spec.SourceRef.Name, err)
	}
	username, password := g.credentials(ctx, source.Spec.URL)
	repo, err := wire.OpenRepository(ctx, source.Spec.URL, username, password, cacheDir())
	if err != nil {
		return err
	}
	commit, err := repo.CommitOf(ctx, revision.ID)
	if err != nil {
		return fmt.Errorf("commit %s: %w", revision.ID.Short(), err)
	}
	e.Commit = explained(commit)
	snapshot, err := repo.SnapshotOf(ctx, revision.ID)
	if err != nil {
		return fmt.Errorf("commit %s: %w", revision.ID.Short(), err)
	}
	from, err := origin.Find(snapshot.Tree, app.Spec, ref)
	if err != nil {
		return err
	}
	e.Origin = &from
	if from.File != "" {
		if e.Changed, err = lastChange(ctx, repo, revision.ID, from.File); err != nil {
			e.Unknown["changed"] = err.Error()
		}
	}
	differ, err := wire.NewDiffer(config, kube, cacheDir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, differ.Close()) }()
	difference, there, err := differ.DiffObject(ctx, snapshot, app, ref)
	switch {
	case err != nil:
		e.Unknown["drift"] = err.Error()
	case !there:
		e.Unknown["drift"] = "the commit that is applied does not render it; the agent keeps it"
	case difference.Error != "":
		e.Unknown["drift"] = difference.Error
	default:
		e.Drift = append(e.Drift, difference.Fields...)
	}
	return nil
}

func explained(c gitsource.Commit) *explainedCommit {
	subject, _, _ := strings.Cut(strings.TrimSpace(c.Message), "\n")
	return &explainedCommit{ID: string(c.ID), Author: fmt.Sprintf("%s <%s>", c.Author.Name, c.Author.Email), At: c.Author.When.UTC(), Subject: subject}
}

// lookedBack is how many commits are searched for the last change of a file.
const lookedBack = 1000

// lastChange finds the newest commit that from can reach and that gave a file the content which it has at from.
func lastChange(ctx context.Context, repo repository, from gitsource.ObjectID, file string) (*explainedCommit, error) {
	commits, err := repo.Log(ctx, from, lookedBack)
	if err != nil {
		return nil, err
	}
	content := map[gitsource.ObjectID]gitsource.ObjectID{}
	for _, commit := range commits {
		snapshot, err := repo.SnapshotOf(ctx, commit.ID)
		if err != nil {
			return nil, err
		}
		entry, err := snapshot.Tree.Entry(file)
		if err != nil {
			return nil, err
		}
		content[commit.ID] = entry.ID
	}
	for _, commit := range commits {
		brought := content[commit.ID] == content[from]
		for _, parent := range commit.Parents {
			before, known := content[parent]
			brought = brought && known && before != content[from]
		}
		if brought {
			return explained(commit), nil
		}
	}
	return nil, fmt.Errorf("%s was last changed before the newest %d commits", file, len(commits))
}

// fieldOwners lists each field that a manager owns, in order of the fields.
func fieldOwners(entries []metav1.ManagedFieldsEntry) ([]fieldOwner, error) {
	all := []fieldOwner{}
	for _, entry := range entries {
		if entry.FieldsV1 == nil {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
			return nil, fmt.Errorf("managedFields of %s cannot be read: %w", entry.Manager, err)
		}
		owner := fieldOwner{Manager: entry.Manager, Operation: string(entry.Operation), Subresource: entry.Subresource}
		if entry.Time != nil {
			at := entry.Time.UTC()
			owner.At = &at
		}
		set.Leaves().Iterate(func(path fieldpath.Path) {
			owner.Field = strings.TrimPrefix(path.String(), ".")
			all = append(all, owner)
		})
	}
	slices.SortStableFunc(all, func(a, b fieldOwner) int { return strings.Compare(a.Field, b.Field) })
	return all, nil
}

func printExplanation(w io.Writer, t terminal, e *explanation) {
	fmt.Fprintln(w, e.Object)
	line := func(what, text string) { fmt.Fprintf(w, "  %-12s %s\n", what, printable(text)) }
	for _, above := range e.MadeBy {
		line("made by", above)
	}
	switch {
	case e.Application == "":
		line("application", "none")
	case e.Environment == "":
		line("application", e.Application)
	default:
		line("application", e.Application+" in "+e.Environment)
	}
	if e.Commit != nil {
		line("applied", e.Commit.String())
	}
	if from := e.Origin; from != nil {
		if from.File != "" {
			line("file", strings.TrimSuffix(fmt.Sprintf("%s:%d", from.File, from.Line), ":0"))
		}
		for _, through := range from.Through {
			line("through", through)
		}
		for _, patch := range from.Patches {
			line("patched by", patch)
		}
		if from.Note != "" {
			line("note", from.Note)
		}
	}
	if e.Changed != nil {
		line("changed", e.Changed.String())
	}
	for _, drift := range e.Drift {
		fmt.Fprintf(w, "  %-12s %s\n", "drift", t.paint(doubt, printable(drift)))
	}
	for _, what := range []string{"owner", "origin", "changed", "drift"} {
		if why := e.Unknown[what]; why != "" {
			line(what, "unknown: "+why)
		}
	}
	fmt.Fprintln(w)
	rows := make([][]string, 0, len(e.Fields))
	for _, f := range e.Fields {
		operation, at := f.Operation, "-"
		if f.Subresource != "" {
			operation += " " + f.Subresource
		}
		if f.At != nil {
			at = clock(*f.At)
		}
		rows = append(rows, []string{printable(f.Field), printable(f.Manager), operation, at})
	}
	table(w, "FIELD MANAGER OPERATION TIME", rows)
}

// String is one line for people.
func (c *explainedCommit) String() string {
	return fmt.Sprintf("%s by %s at %s: %s", gitsource.ObjectID(c.ID).Short(), c.Author, clock(c.At), c.Subject)
}
