package rollout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// jobsLive is how long a finished Job stays that nobody deletes, in seconds: a day.
const jobsLive = 24 * 60 * 60

// templateOf reads the template of a Job. A field that is not known, or that would not be honoured, is an error.
func templateOf(check *v1alpha1.JobCheck) (batchv1.JobTemplateSpec, error) {
	var template batchv1.JobTemplateSpec
	decoder := json.NewDecoder(bytes.NewReader(check.Template.Raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&template); err != nil {
		return template, fmt.Errorf("job: template: %w", err)
	}
	meta, spec := template.ObjectMeta, template.Spec
	rest := metav1.ObjectMeta{Labels: meta.Labels, Annotations: meta.Annotations, CreationTimestamp: meta.CreationTimestamp}
	switch {
	case fmt.Sprint(meta) != fmt.Sprint(rest):
		return template, errors.New("job: template.metadata: only labels and annotations are taken over")
	case len(spec.Template.Spec.Containers) == 0:
		return template, errors.New("job: template.spec.template.spec.containers is missing")
	case spec.Selector != nil || spec.ManualSelector != nil:
		return template, errors.New("job: template.spec.selector: the Job finds its own pods (leave it out)")
	case spec.TTLSecondsAfterFinished != nil:
		return template, errors.New("job: template.spec.ttlSecondsAfterFinished: the Job is deleted once its outcome is on record (leave it out)")
	case spec.Suspend != nil && *spec.Suspend:
		return template, errors.New("job: template.spec.suspend: a Job that does not run has no outcome")
	}
	return template, nil
}

// jobOf is the Job for a look. It does not carry the label of the Application: the reconciler has nothing to do with it.
func jobOf(rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck, name string) (*batchv1.Job, error) {
	template, err := templateOf(check.Job)
	if err != nil {
		return nil, err
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: rollout.Namespace, Labels: template.Labels, Annotations: template.Annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion().String(), Kind: "Rollout", Name: rollout.Name, UID: rollout.UID,
			}},
		},
		Spec: template.Spec,
	}
	pods := &job.Spec.Template
	for _, marked := range []*map[string]string{&job.Labels, &pods.Labels} {
		all := maps.Clone(*marked)
		if all == nil {
			all = map[string]string{}
		}
		all[manifests.LabelCheck] = labelValue(rollout.Name)
		*marked = all
	}
	if pods.Spec.RestartPolicy == "" {
		pods.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	if job.Spec.BackoffLimit == nil {
		job.Spec.BackoffLimit = new(int32(0))
	}
	job.Spec.TTLSecondsAfterFinished = new(int32(jobsLive))
	for _, containers := range [][]corev1.Container{pods.Spec.InitContainers, pods.Spec.Containers} {
		for i := range containers {
			containers[i].Env = append(environmentOf(rollout, check), containers[i].Env...)
		}
	}
	return job, nil
}

// environmentOf tells a Job what it is about.
func environmentOf(rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck) (env []corev1.EnvVar) {
	services := func(name func(string) string, there bool) string {
		var names []string
		for _, service := range rollout.Spec.Services {
			if there {
				names = append(names, name(service.Name))
			}
		}
		return strings.Join(names, " ")
	}
	routed, canary := byRoutes(rollout), canaryName(rollout)
	if byOrdinal(rollout) {
		canary = rollout.Spec.WorkloadRef.Name
	}
	for _, variable := range [][2]string{
		{"ROLLOUT", rollout.Name},
		{"NAMESPACE", rollout.Namespace},
		{"METRIC", check.Name},
		{"BUNDLE", rollout.Spec.Bundle.Digest},
		{"REVISION", rollout.Spec.Bundle.Revision},
		{"CANARY", canary},
		{"STABLE", rollout.Spec.WorkloadRef.Name},
		{"CANARY_SERVICES", services(gateway.Canary, routed || rollout.Spec.Strategy.BlueGreen != nil)},
		{"STABLE_SERVICES", services(gateway.Stable, routed)},
	} {
		env = append(env, corev1.EnvVar{Name: "SLIPWAY_" + variable[0], Value: variable[1]})
	}
	return env
}
