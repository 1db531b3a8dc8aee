package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/slipway-cd/slipway/cmd/internal/wire/githost"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
)

// check refuses flags that do not belong together.
func (f *diffFlags) check() error {
	switch {
	case f.cluster != "" && !f.comment:
		return usage("--cluster names the cluster in a comment: give --comment, too")
	case !f.comment:
		return nil
	case f.ref == "":
		return usage("--comment needs --ref: the branch or refs/pull/NUMBER/head of a pull request")
	case f.host == "":
		return usage("--comment needs --host or SLIPWAY_HOST: the kind of the Git host")
	case f.cluster == "":
		return usage("--comment needs --cluster: each cluster has a comment of its own")
	case strings.Trim(strings.ToLower(f.cluster), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.Contains(f.cluster, "--"):
		return usage("--cluster %s: want a name as those of the folders of clusters/", f.cluster)
	case len(f.contexts) > 1 || len(f.kubeconfigs) > 1 || f.clusters:
		return usage("--comment is about one cluster: give one --context")
	}
	return nil
}

// tell says on the pull request of a ref what was found, in place of what was said of this cluster before, and shows at the
// commit whether it could be applied. Differences are no failure: they are what a pull request is for.
func (g *globals) tell(ctx context.Context, f diffFlags, target string, head gitsource.ObjectID, diffs []applicationDiff, failure error) error {
	username, password := g.credentials(ctx, target)
	host, err := githost.New(githost.Options{Kind: f.host, URL: target, Branch: g.branch, Username: username, Token: password})
	if err != nil {
		return usageError{fmt.Errorf("--host: %w", err)}
	}
	status := forge.Status{State: forge.Success, Context: "slipway/diff/" + f.cluster, Description: totals(diffs)}
	if diffVerdict(diffs) != nil && !errors.Is(diffVerdict(diffs), errNo) {
		status.State = forge.Failure
	}
	if failure != nil {
		// The cause stands where the command ran: it may name hosts that are nobody's business here.
		status.State, status.Description = forge.Errored, "could not be compared with "+f.cluster
		return host.Check(ctx, head, status)
	}
	number, err := pullRequest(ctx, host, f.ref)
	if err != nil {
		return err
	}
	return errors.Join(
		host.Comment(ctx, number, "diff."+f.cluster, diffComment(f.cluster, head, diffs)),
		host.Check(ctx, head, status),
	)
}

// pullRequest finds the number of the open request of a ref.
func pullRequest(ctx context.Context, host *githost.Host, ref string) (int64, error) {
	if rest, found := strings.CutPrefix(ref, "refs/pull/"); found {
		text, _, _ := strings.Cut(rest, "/")
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, usage("--ref %s: want refs/pull/NUMBER/head", ref)
		}
		return number, nil
	}
	branch := strings.TrimPrefix(ref, "refs/heads/")
	for request, err := range host.Of(ctx, branch) {
		if err != nil {
			return 0, err
		}
		if !request.Closed && !request.Merged {
			return request.Number, nil
		}
	}
	return 0, fmt.Errorf("--comment: branch %s has no open pull request", branch)
}

// totals is one line on all Applications.
func totals(diffs []applicationDiff) string {
	count, broken, held := map[string]int{}, 0, 0
	for _, diff := range diffs {
		for _, difference := range diff.Differences {
			count[difference.Verb]++
		}
		if diff.Error != "" {
			broken++
		}
		if diff.Held != "" {
			held++
		}
	}
	var parts []string
	for _, verb := range []string{"create", "change", "delete", "refuse"} {
		if count[verb] > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", count[verb], verb))
		}
	}
	if broken > 0 {
		parts = append(parts, fmt.Sprintf("%d could not be compared", broken))
	}
	if held > 0 {
		parts = append(parts, fmt.Sprintf("%d wait for a person", held))
	}
	return cmp.Or(strings.Join(parts, ", "), "no differences")
}
