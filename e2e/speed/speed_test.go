package speed

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// parallel is how many requests the bare client has in flight.
const parallel = 20

// BenchmarkFleet measures one agent with 100 and with 1,000 Applications. One iteration is a whole life: run it with
// -benchtime 1x.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("N=%d", n), func(b *testing.B) {
			for b.Loop() {
				newFleet(b, n).measure()
			}
		})
	}
}

func (f *fleet) measure() {
	floor := f.floor()
	first := f.firstApply()
	requests, cpu := f.unrelated(10)
	commits := f.oneOfThem(30)
	ready, patched := f.restart()
	heals := f.drift(min(500, 2*f.n)) // whoever undoes three heals in a row is left alone for a while
	usage, err := f.agent.Usage()
	f.must(err)
	ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
	f.ReportMetric(first.Seconds()/floor.Seconds(), "first/floor")
	f.ReportMetric(float64(quantile(commits, 0.5).Milliseconds()), "commit-p50-ms")
	f.ReportMetric(float64(quantile(heals, 0.99).Milliseconds()), "drift-p99-ms")
	f.ReportMetric(float64(usage.Memory>>20), "MiB")
	f.table([]row{
		{fmt.Sprintf("floor: a bare client, %d at once, the same applies and one status each", parallel), fmt.Sprintf("%.1f s", floor.Seconds()), ""},
		{"first apply, from the push until all are Ready", fmt.Sprintf("%.1f s, %.2f times the floor", first.Seconds(), first.Seconds()/floor.Seconds()), "1.2 times the floor"},
		{"a commit that touches nothing rendered: requests besides the source's status", fmt.Sprint(requests), "0"},
		{"its CPU", ms(cpu), "100 ms"},
		{"a commit that touches one Application, from the push to the changed object", fmt.Sprintf("p50 %s, p99 %s", ms(quantile(commits, 0.5)), ms(quantile(commits, 0.99))), "p50 300 ms"},
		{"restart: ready", ms(ready), "5 s"},
		{"restart: PATCHes", fmt.Sprint(patched), "0"},
		{fmt.Sprintf("%d hand edits, healed", len(heals)), fmt.Sprintf("p50 %s, p99 %s", ms(quantile(heals, 0.5)), ms(quantile(heals, 0.99))), "p99 500 ms"},
		{"resident memory, render children included", fmt.Sprintf("%d MiB", usage.Memory>>20), "200 MB"},
	})
}

// floor sends what the agent will have to send, into another namespace and as fast as a client can: for each Application
// itself and its four objects one apply, and one status.
func (f *fleet) floor() time.Duration {
	const beside = "floor"
	f.must(f.Kube.Create(f.Context(), &corev1.Namespace{ObjectMeta: named("", beside)}))
	work := make(chan int)
	var running sync.WaitGroup
	start := time.Now()
	for range parallel {
		running.Go(func() {
			for i := range work {
				f.send(beside, i)
			}
		})
	}
	for i := range f.n {
		work <- i
	}
	close(work)
	running.Wait()
	took := time.Since(start)
	f.clear(beside)
	return took
}

// clear takes away what the bare client made: the API server finds an address for a Service the slower the more there are.
func (f *fleet) clear(namespace string) {
	for _, kind := range []struct {
		client.Object
		client.ObjectList
	}{
		{&v1alpha1.Application{}, &v1alpha1.ApplicationList{}},
		{&networkingv1.Ingress{}, &networkingv1.IngressList{}},
		{&corev1.Service{}, &corev1.ServiceList{}},
		{&appsv1.Deployment{}, &appsv1.DeploymentList{}},
		{&corev1.ServiceAccount{}, &corev1.ServiceAccountList{}},
	} {
		f.must(f.Kube.DeleteAllOf(f.Context(), kind.Object, client.InNamespace(namespace)))
		f.must(world.Eventually(f.Context(), 5*time.Minute, func() error {
			if err := f.Kube.List(f.Context(), kind.ObjectList, client.InNamespace(namespace)); err != nil {
				return err
			}
			if left := meta.LenList(kind.ObjectList); left > 1 { // a ServiceAccount called default is always there
				return fmt.Errorf("%d are still there", left)
			}
			return nil
		}))
	}
	f.since(time.Now())
}

func (f *fleet) send(into string, i int) {
	text := strings.ReplaceAll(application(name(i)), "namespace: slipway-system", "namespace: "+into) + "---\n" + world.FourObjects(name(i), 80)
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if decoder.Decode(&object.Object) != nil {
			break
		}
		object.SetNamespace(into)
		if err := f.Kube.Apply(f.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("bare"), client.ForceOwnership); err != nil {
			f.Error(err)
		}
	}
	app := &v1alpha1.Application{ObjectMeta: named(into, name(i))}
	if err := f.Kube.Status().Patch(f.Context(), app, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"objects":4}}`))); err != nil {
		f.Error(err)
	}
}

func (f *fleet) firstApply() time.Duration {
	start := f.push(f.apps()...)
	f.allReady()
	took := time.Since(start)
	kinds := map[string]int{}
	for _, r := range f.since(start) {
		kinds[r.Verb+" "+r.Resource]++
	}
	f.B.Logf("first apply: %v", kinds)
	return took
}

// unrelated pushes commits that touch nothing rendered, and returns what the worst one cost.
func (f *fleet) unrelated(times int) (requests int, cpu time.Duration) {
	for range times {
		f.version++
		before, err := f.agent.Usage()
		f.must(err)
		start := f.push(world.Write("README.md", fmt.Sprintf("# Fleet %d\n", f.version)))
		others := 0
		for _, r := range f.since(start) {
			if r.Resource != "gitsources/status" && r.Resource != "secrets" {
				others++
			}
		}
		after, err := f.agent.Usage()
		f.must(err)
		requests, cpu = max(requests, others), max(cpu, after.CPU-before.CPU)
	}
	return requests, cpu
}

// oneOfThem pushes commits that touch one Application each, and returns how long the change took to arrive.
func (f *fleet) oneOfThem(times int) (all []time.Duration) {
	for i := range times {
		f.version++
		app, port := name(i*7%f.n), 1000+f.version
		arrived := f.arrival(app, func(s *corev1.Service) bool { return s.Spec.Ports[0].Port == int32(port) })
		start := f.push(world.Write("apps/"+app+"/objects.yaml", world.FourObjects(app, port)))
		all = append(all, arrived().Sub(start))
	}
	f.since(time.Now())
	return all
}

// arrival watches a Service from now on. What it returns waits until the Service is as wanted.
func (f *fleet) arrival(service string, is func(*corev1.Service) bool) func() time.Time {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	watch, err := f.Kube.Watch(ctx, &corev1.ServiceList{}, client.InNamespace(namespace), client.MatchingFields{"metadata.name": service})
	f.must(err)
	return func() time.Time {
		defer cancel()
		defer watch.Stop()
		for event := range watch.ResultChan() {
			if s, ok := event.Object.(*corev1.Service); ok && is(s) {
				return time.Now()
			}
		}
		f.Fatalf("service %s is not as wanted within a minute", service)
		return time.Time{}
	}
}

// restart kills the agent and returns when the next one is ready, and how many objects that one changed.
func (f *fleet) restart() (ready time.Duration, patched int) {
	f.agent.Kill()
	start := time.Now()
	f.start()
	f.must(world.Eventually(f.Context(), time.Minute, func() error {
		request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, f.health, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("HTTP %d", answer.StatusCode)
		}
		return nil
	}))
	ready = time.Since(start)
	for _, r := range f.since(start) {
		if r.Verb == "patch" && r.Resource != "gitsources/status" {
			patched++
		}
	}
	return ready, patched
}

// drift edits fields of ours by hand, one after the other, and returns how long each stayed.
func (f *fleet) drift(times int) (all []time.Duration) {
	for i := range times {
		service := name(i % f.n)
		healed := f.arrival(service, func(s *corev1.Service) bool {
			return s.Labels["team"] == "harbour" && s.Annotations["edit"] == fmt.Sprint(i)
		})
		edit := fmt.Sprintf(`{"metadata":{"labels":{"team":"pirates"},"annotations":{"edit":"%d"}}}`, i)
		object := &corev1.Service{ObjectMeta: named(namespace, service)}
		start := time.Now()
		f.must(f.Kube.Patch(f.Context(), object, client.RawPatch("application/merge-patch+json", []byte(edit)), client.FieldOwner("kubectl-edit")))
		all = append(all, healed().Sub(start))
	}
	return all
}
