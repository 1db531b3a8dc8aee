package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/expression"
)

// variableNames is what may stand between braces, for people.
const variableNames = "canary, stable, pods, workload, service, namespace and interval"

// queriesIn are the queries of a metric, and whether they are asked for both versions.
func queriesIn(check *v1alpha1.MetricCheck) (queries []string, compares bool) {
	switch {
	case check.HTTP != nil:
		return []string{check.HTTP.URL + "\n" + check.HTTP.Body}, check.Relative != nil
	case check.Range != nil:
		return []string{check.Range.Query}, false
	case check.Relative != nil:
		return []string{check.Relative.Query}, true
	case check.Errors != nil:
		return []string{check.Errors.Total, check.Errors.Bad}, true
	case check.Latency != nil:
		return []string{check.Latency.Buckets}, true
	}
	return nil, false
}

// checkQueries refuses what cannot be asked for: variables that nobody knows, comparisons that would compare a version with
// itself, and sources that do not fit.
func checkQueries(check *v1alpha1.MetricCheck) error {
	if err := checkSource(check); err != nil {
		return err
	}
	queries, compares := queriesIn(check)
	known, _ := queriesOf(&v1alpha1.Rollout{}, time.Second)
	for _, query := range queries {
		used := map[string]bool{}
		for _, found := range variable.FindAllStringSubmatch(query, -1) {
			if _, is := known[found[1]]; !is {
				return fmt.Errorf("query %q: {{%s}} is unknown (there are %s)", query, found[1], variableNames)
			}
			used[found[1]] = true
		}
		if compares && !used["pods"] && !used["service"] && !used["workload"] {
			return fmt.Errorf("query %q: without {{pods}} or {{service}} it is the same for both versions", query)
		}
		if strings.Contains(variable.ReplaceAllString(query, ""), "{{") {
			return fmt.Errorf("query %q: {{ without }}", query)
		}
	}
	return nil
}

// checkSource says what does not fit together in where the numbers of a metric come from.
func checkSource(check *v1alpha1.MetricCheck) error {
	query := ""
	switch {
	case check.Job != nil && (check.HTTP != nil || check.Prometheus != nil):
		return errors.New("job: it ends well or not, and nobody else is asked (leave prometheus and http out)")
	case check.Job != nil:
		_, err := templateOf(check.Job)
		return err
	case check.Range != nil:
		query = check.Range.Query
	case check.Relative != nil:
		query = check.Relative.Query
	case check.HTTP != nil:
		return errors.New("http: it gives one number, for range or relative (errors and latency need counters)")
	default:
		return nil
	}
	switch {
	case check.HTTP == nil && query == "":
		return errors.New("query is missing (or give http)")
	case check.HTTP == nil:
		return nil
	case query != "":
		return errors.New("query and http exclude each other")
	case check.HTTP.Method != "POST" && check.HTTP.Body != "":
		return errors.New("http: body: a GET has none (give method: POST)")
	}
	if _, err := expression.CompileNumber(check.HTTP.Value, answerVariable); err != nil {
		return fmt.Errorf("http: value: %w", err)
	}
	return nil
}

// asksBy says that a metric uses a variable.
func asksBy(check *v1alpha1.MetricCheck, name string) bool {
	queries, _ := queriesIn(check)
	return slices.ContainsFunc(queries, func(query string) bool {
		return slices.ContainsFunc(variable.FindAllStringSubmatch(query, -1), func(found []string) bool { return found[1] == name })
	})
}

// asksFor is the digest of what a metric measures: what was seen of something else must not count for it.
func asksFor(check *v1alpha1.MetricCheck) string {
	queries, _ := queriesIn(check)
	content, err := json.Marshal([]any{queries, check.CheckSource, check.Job})
	if err != nil { // it came as JSON
		return err.Error()
	}
	return manifests.DigestOf(content).Short()
}
