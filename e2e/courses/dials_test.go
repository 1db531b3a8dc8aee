package courses

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// dials is what Prometheus reads of all apps, which a test turns. A gauge stands at what it was set to; counters of both
// versions go on with each scrape.
type dials struct {
	sync.Mutex
	gauges   map[string]map[string]float64 // by app and name
	counters map[string]map[string]*counted
}

// counted is what one version has served.
type counted struct{ all, bad, ofAll int }

const perScrape = 100

func newDials() *dials {
	return &dials{gauges: map[string]map[string]float64{}, counters: map[string]map[string]*counted{}}
}

// add gives an app gauges that are well, and counters without errors, if it has none yet.
func (d *dials) add(app string) {
	d.Lock()
	defer d.Unlock()
	if d.gauges[app] != nil {
		return
	}
	d.gauges[app] = map[string]float64{"before": 1, "after": 1}
	d.counters[app] = map[string]*counted{"web-canary": {}, "web": {}}
}

// turn sets a gauge; above 5 is bad.
func (d *dials) turn(app, name string, to float64) {
	d.Lock()
	defer d.Unlock()
	d.gauges[app][name] = to
}

// mute takes a gauge away.
func (d *dials) mute(app, name string) {
	d.Lock()
	defer d.Unlock()
	delete(d.gauges[app], name)
}

// spoil lets a share of the canary's requests fail from now on, in percent.
func (d *dials) spoil(app string, percent int) {
	d.Lock()
	defer d.Unlock()
	d.counters[app]["web-canary"].ofAll = percent
}

// reset lets the counters of all apps begin anew, as those of restarted programs do.
func (d *dials) reset() {
	d.Lock()
	defer d.Unlock()
	for _, of := range d.counters {
		for _, c := range of {
			c.all, c.bad = 0, 0
		}
	}
}

func (d *dials) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	d.Lock()
	defer d.Unlock()
	for _, app := range slices.Sorted(maps.Keys(d.gauges)) {
		for _, name := range slices.Sorted(maps.Keys(d.gauges[app])) {
			fmt.Fprintf(w, "load{app=%q,of=%q} %g\n", app, name, d.gauges[app][name])
		}
		for _, version := range slices.Sorted(maps.Keys(d.counters[app])) {
			c := d.counters[app][version]
			c.all, c.bad = c.all+perScrape, c.bad+perScrape*c.ofAll/100
			service := map[string]string{"web": "web-stable", "web-canary": "web-canary"}[version]
			for of, n := range map[string]int{"all": c.all, "bad": c.bad} {
				fmt.Fprintf(w, "requests_total{app=%q,of=%q,pods=\"%s-0a1b2c-x1\",via=%q} %d\n", app, of, version, service, n)
			}
		}
	}
}
