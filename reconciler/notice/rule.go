package notice

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Rule is what a Notification asks for.
type Rule struct {
	names    []string
	selector labels.Selector // nil for none
	reasons  []string
	text     *Text
	// perCommit: each commit is told of by itself, since a status stays at its commit.
	perCommit bool
	interval  time.Duration
	burst     int
	every     time.Duration
}

// Parse checks what the API server does not.
func Parse(spec v1alpha1.NotificationSpec) (*Rule, error) {
	r := &Rule{
		perCommit: spec.Provider == v1alpha1.NotifyCommitStatus,
		names:     spec.Applications, reasons: spec.Reasons,
		burst: spec.Limit.Burst, every: spec.Limit.Every.Duration,
	}
	if spec.Interval != nil {
		r.interval = spec.Interval.Duration
	}
	if spec.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
		if err != nil {
			return nil, fmt.Errorf("spec.selector: %w", err)
		}
		r.selector = selector
	}
	if r.burst < 1 || r.every <= 0 {
		return nil, errors.New("spec.limit: burst and every have to be more than nothing")
	}
	var err error
	if r.text, err = ParseText(spec.Template); err != nil {
		return nil, fmt.Errorf("spec.%w", err)
	}
	return r, nil
}

// Removed is the reason of a message about an object that is gone.
const Removed = "Removed"

// Concerns reports whether a change is told: of an Application with labels, or of a Rollout of it.
func (r *Rule) Concerns(m Message, of map[string]string) bool {
	if len(r.names) > 0 || r.selector != nil {
		named := slices.Contains(r.names, m.Application)
		if !named && (r.selector == nil || !r.selector.Matches(labels.Set(of))) {
			return false
		}
	}
	if r.perCommit && m.Revision == "" {
		return false
	}
	if len(r.reasons) > 0 {
		return slices.Contains(r.reasons, m.Reason)
	}
	return m.Reason == Removed || m.Ready != string(metav1.ConditionUnknown) // what is under way is no news unless asked for by its reason
}

// Text is what is told of a message.
func (r *Rule) Text(m Message) (string, error) { return r.text.Of(m) }

// Past is what a receiver was told, and what it is yet to be told. The zero value is a receiver that has heard nothing.
type Past struct {
	about  map[string]*subject
	heard  uint64
	tokens float64
	filled time.Time // when tokens were counted
}

// subject is one object, or with statuses of commits one object at one commit.
type subject struct {
	last  string    // what was told last
	at    time.Time // when that was
	next  *Message  // the newest that was not told yet
	order uint64    // in which next came
}

// Why a message is not told.
const (
	Repeated   = "repeated"   // the receiver knows it
	Superseded = "superseded" // something newer came before it could be told
)

// Hear notes a change. It returns why a message, this one or an earlier one, will not be told. Only the newest about each object
// waits, so that what a receiver was told last is what is the case, however few messages the limit lets through.
func (r *Rule) Hear(p *Past, m Message, now time.Time) (why string) {
	r.age(p, now)
	if p.about == nil {
		p.about = map[string]*subject{}
	}
	name := m.Kind + "/" + m.Namespace + "/" + m.Name
	if r.perCommit {
		name += "@" + m.Revision
	}
	s := p.about[name]
	if s == nil {
		s = &subject{}
		p.about[name] = s
	}
	key := m.key()
	if s.last == key && now.Sub(s.at) < r.interval {
		s.next = nil // it came back to what the receiver knows
		return Repeated
	}
	switch {
	case s.next == nil:
		p.heard++
		s.order = p.heard
	case s.next.key() != key:
		why = Superseded
	}
	s.next = &m
	return why
}

// Next returns what is told now, or else when to ask again; the zero time stands for when something new is heard.
func (r *Rule) Next(p *Past, now time.Time) (*Message, time.Time) {
	r.age(p, now)
	if p.filled.IsZero() {
		p.tokens, p.filled = float64(r.burst), now
	}
	p.tokens = min(float64(r.burst), p.tokens+float64(now.Sub(p.filled))/float64(r.every))
	p.filled = now
	var first *subject
	for _, s := range p.about {
		if s.next != nil && (first == nil || s.order < first.order) {
			first = s
		}
	}
	if first == nil {
		return nil, time.Time{}
	}
	if p.tokens < 1 {
		return nil, now.Add(time.Duration((1-p.tokens)*float64(r.every)) + 1)
	}
	p.tokens--
	m := first.next
	first.next, first.last, first.at = nil, m.key(), now
	return m, time.Time{}
}

// age forgets what was told before the interval.
func (r *Rule) age(p *Past, now time.Time) {
	maps.DeleteFunc(p.about, func(_ string, s *subject) bool { return s.next == nil && now.Sub(s.at) >= r.interval })
}

func (m Message) key() string {
	return strings.Join([]string{m.Ready, m.Reason, m.Message, m.Revision}, "\x00")
}

// Backoff is how long to wait after a number of failures in a row, and whether to try again at all.
func Backoff(failures int) (time.Duration, bool) {
	const attempts = 7 // 1 s, 2 s, 4 s ... 32 s: about a minute
	if failures >= attempts {
		return 0, false
	}
	return time.Second << (failures - 1), true
}
