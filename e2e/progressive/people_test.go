package progressive

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// testers is the header of people who want to see what is new, with the value yes.
const testers = "X-Tester"

// answer is what one request got.
type answer struct {
	at      time.Time
	version string // that answered; empty when the gateway did
	fault   string // empty when all is well
}

type answers []answer

// people ask for an app all the time.
type people struct {
	client  *http.Client
	url     string
	headers http.Header
	end     func()

	mu  sync.Mutex
	all answers
}

// perAsker is how many requests each of them sends in a second, unless answers take longer.
const perAsker = 20

// ask begins to ask the gateway for an app, so many times in a second until stop or the end of the test. Headers are names and values.
func (p *port) ask(tb testing.TB, app string, rate int, headers ...string) *people {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: rate}
	all := &people{url: "http://" + p.Cluster.Port(webPort) + "/" + app, client: &http.Client{Transport: transport, Timeout: 10 * time.Second}, headers: http.Header{}}
	for pair := range slices.Chunk(headers, 2) {
		all.headers.Set(pair[0], pair[1])
	}
	ctx, cancel := context.WithCancel(tb.Context())
	var asking sync.WaitGroup
	for range (rate + perAsker - 1) / perAsker {
		asking.Go(func() {
			tick := time.NewTicker(time.Second / perAsker)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if got := all.once(ctx); ctx.Err() == nil {
					all.mu.Lock()
					all.all = append(all.all, got)
					all.mu.Unlock()
				}
			}
		})
	}
	all.end = func() {
		cancel()
		asking.Wait()
		transport.CloseIdleConnections()
	}
	tb.Cleanup(all.end)
	return all
}

// stop ends the asking, and returns all answers.
func (p *people) stop() answers {
	p.end()
	return p.since(0)
}

func (p *people) once(ctx context.Context) (got answer) {
	defer func() { got.at = time.Now() }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, http.NoBody)
	if err != nil {
		return answer{fault: err.Error()}
	}
	request.Header = p.headers.Clone()
	response, err := p.client.Do(request)
	if err != nil {
		return answer{fault: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{fault: err.Error()}
	}
	hello, version, _ := strings.Cut(strings.TrimSpace(string(body)), " from shop ")
	got.version = version
	switch {
	case response.StatusCode != http.StatusOK:
		got.fault = response.Status
	case hello != greeting(version):
		got.fault = "mixed: " + string(body)
	}
	return got
}

// mark is where since can begin.
func (p *people) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// since are the answers that came after a mark.
func (p *people) since(mark int) answers {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all[mark:])
}

// by counts answers by version; the empty one is the gateway.
func (a answers) by() map[string]int {
	all := map[string]int{}
	for _, one := range a {
		all[one.version]++
	}
	return all
}

// faults counts what went wrong and was not the fault of one of these versions.
func (a answers) faults(except ...string) map[string]int {
	all := map[string]int{}
	for _, one := range a {
		if one.fault != "" && (one.version == "" || !slices.Contains(except, one.version)) {
			all[one.fault+" by "+one.version]++
		}
	}
	return all
}

// bad counts all that went wrong.
func (a answers) bad() (n int) {
	for _, one := range a {
		if one.fault != "" {
			n++
		}
	}
	return n
}

// first and last are when a version answered; zero for never.
func (a answers) first(version string) time.Time {
	i := slices.IndexFunc(a, func(one answer) bool { return one.version == version })
	if i < 0 {
		return time.Time{}
	}
	return a[i].at
}

func (a answers) last(version string) (at time.Time) {
	for _, one := range a {
		if one.version == version {
			at = one.at
		}
	}
	return at
}
