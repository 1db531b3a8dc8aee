package notice_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/notice"
)

func failed() notice.Message {
	return notice.Message{
		Cluster: "eu", Kind: "Application", Namespace: "slipway-system", Name: "shop", Application: "shop", Environment: "production",
		Ready: "False", Reason: "RenderFailed", Message: "no such file", Revision: "refs/heads/main@sha1:0123456789abcdef0123456789abcdef01234567",
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"":             "eu: Application shop (production): RenderFailed: no such file [main@0123456789ab]",
		"{{.Name}}":    "shop",
		"{{/* x */}}y": "y",
		`{{if eq .Ready "False"}}bad{{else}}good{{end}}`:   "bad",
		`{{with .Environment}}in {{.}}{{end}}`:             "in production",
		`{{short .Revision}}`:                              "main@0123456789ab",
		`{{if and .Name (not .Message)}}a{{else}}b{{end}}`: "b",
	} {
		text, err := notice.ParseText(template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		if got, err := text.Of(failed()); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", template, got, err, want)
		}
	}
}

// What takes more time or room than the template is long is refused when it is read.
func TestTextRefuses(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		`{{range 1000000000}}{{end}}`:                              "range",
		`{{printf "%1000000d" 1}}`:                                 "printf",
		`{{$a := print .Message .Message}}{{$a = print $a $a}}`:    "print",
		`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`:    "define",
		`{{template "template" .}}`:                                "is not taken",
		`{{html .Message}}`:                                        "html",
		`{{if (index .Message 1)}}{{end}}`:                         "index",
		`{{.Secret}}`:                                              "Secret",
		`{{call .Name}}`:                                           "call",
		`{{break}}`:                                                "break",
		`{{.Name`:                                                  "template",
		strings.Repeat("a", 5000):                                  "4096",
		`{{with .Name}}{{range .}}{{end}}{{end}}`:                  "range",
		`{{with (printf "%9d" 1)}}{{end}}`:                         "printf",
		`{{.Name | printf "%99999s"}}`:                             "printf",
		`{{(printf "%99999s" .Name).Length}}`:                      "is not taken",
		`{{if false}}{{else}}{{range $i := .Name}}x{{end}}{{end}}`: "range",
	} {
		if _, err := notice.ParseText(template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", template, err, want)
		}
	}
	long := failed()
	long.Message = strings.Repeat("é", 1<<20)
	text, err := notice.ParseText(strings.Repeat("{{.Message}}", 3))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := text.Of(long); err == nil || !strings.Contains(err.Error(), "8192") {
		t.Errorf("three long messages: %v", err)
	}
	if text, err = notice.ParseText(""); err != nil {
		t.Fatal(err)
	}
	if got, err := text.Of(long); err != nil || len(got) > notice.MaxText {
		t.Errorf("a long message: %d bytes, %v", len(got), err)
	}
}

func spec(change func(*v1alpha1.NotificationSpec)) v1alpha1.NotificationSpec {
	s := v1alpha1.NotificationSpec{
		Interval: &metav1.Duration{Duration: 10 * time.Minute}, Limit: v1alpha1.NotificationLimit{Burst: 2, Every: metav1.Duration{Duration: time.Minute}},
	}
	if change != nil {
		change(&s)
	}
	return s
}

func rule(t *testing.T, change func(*v1alpha1.NotificationSpec)) *notice.Rule {
	t.Helper()
	r, err := notice.Parse(spec(change))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConcerns(t *testing.T) {
	t.Parallel()
	team := map[string]string{"team": "shop"}
	for name, c := range map[string]struct {
		change func(*v1alpha1.NotificationSpec)
		ready  string
		want   bool
	}{
		"all":             {nil, "False", true},
		"progress":        {nil, "Unknown", false},
		"removed":         {nil, "Removed", true},
		"progress, asked": {func(s *v1alpha1.NotificationSpec) { s.Reasons = []string{"RenderFailed"} }, "Unknown", true},
		"other reason":    {func(s *v1alpha1.NotificationSpec) { s.Reasons = []string{"Succeeded"} }, "False", false},
		"named":           {func(s *v1alpha1.NotificationSpec) { s.Applications = []string{"shop"} }, "False", true},
		"other named":     {func(s *v1alpha1.NotificationSpec) { s.Applications = []string{"cart"} }, "False", false},
		"selected":        {func(s *v1alpha1.NotificationSpec) { s.Selector = &metav1.LabelSelector{MatchLabels: team} }, "False", true},
		"other selected": {func(s *v1alpha1.NotificationSpec) {
			s.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "cart"}}
		}, "False", false},
		"named or matched": {func(s *v1alpha1.NotificationSpec) {
			s.Applications, s.Selector = []string{"cart"}, &metav1.LabelSelector{MatchLabels: team}
		}, "False", true},
	} {
		m := failed()
		if m.Ready = c.ready; c.ready == notice.Removed {
			m.Ready, m.Reason = "Unknown", notice.Removed
		}
		if got := rule(t, c.change).Concerns(m, team); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestHearAndNext is a story: at seconds since its begin, something is heard, and what is told then.
func TestHearAndNext(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	message := func(text string) notice.Message {
		m := failed()
		m.Name, m.Reason, _ = strings.Cut(text, " ")
		return m
	}
	for name, story := range map[string]struct {
		change func(*v1alpha1.NotificationSpec)
		steps  []step
	}{
		"the same is told once each interval": {nil, []step{
			{0, "a Bad", "", "a Bad", 0},
			{1, "a Bad", notice.Repeated, "", 0},
			{600, "a Bad", "", "a Bad", 0},
		}},
		"what comes and goes is told as it does": {nil, []step{
			{0, "a Bad", "", "a Bad", 0},
			{1, "a Good", "", "a Good", 0},
			{2, "a Bad", "", "", 60},
			{61, "", "", "a Bad", 0},
		}},
		"what came back to what was told is no news": {nil, []step{
			{0, "a Bad", "", "a Bad", 0},
			{1, "b Bad", "", "b Bad", 0},
			{2, "a Good", "", "", 60},
			{3, "a Bad", notice.Repeated, "", 0},
			{600, "", "", "", 0},
		}},
		"the limit lets the newest of each through, in turn": {nil, []step{
			{0, "a Bad", "", "a Bad", 0},
			{0, "b Bad", "", "b Bad", 0},
			{1, "c Bad", "", "", 60},
			{1, "d Bad", "", "", 60},
			{2, "c Worse", notice.Superseded, "", 60},
			{61, "", "", "c Worse", 0},
			{62, "", "", "", 120},
			{121, "", "", "d Bad", 0},
			{7200, "e Bad", "", "e Bad", 0},
			{7200, "f Bad", "", "f Bad", 0},
			{7200, "g Bad", "", "", 7260}, // the bucket holds no more than a burst
		}},
		"no interval": {func(s *v1alpha1.NotificationSpec) { s.Interval = &metav1.Duration{} }, []step{
			{0, "a Bad", "", "a Bad", 0},
			{0, "a Bad", "", "a Bad", 0},
			{1, "a Bad", "", "", 60},
		}},
	} {
		r, past := rule(t, story.change), &notice.Past{}
		for i, s := range story.steps {
			now := begin.Add(s.at * time.Second)
			if s.heard != "" {
				if why := r.Hear(past, message(s.heard), now); why != s.why {
					t.Errorf("%s, %d: %q, want %q", name, i, why, s.why)
				}
			}
			told := ""
			m, again := r.Next(past, now)
			if m != nil {
				told = m.Name + " " + m.Reason
			}
			wait := time.Duration(0)
			if !again.IsZero() {
				wait = again.Sub(begin).Truncate(time.Second) / time.Second
			}
			if told != s.told || wait != s.again {
				t.Errorf("%s, %d: told %q, again at %d; want %q, %d", name, i, told, wait, s.told, s.again)
			}
		}
	}
}

type step struct {
	at         time.Duration // in seconds
	heard, why string
	told       string
	again      time.Duration // in seconds; 0 for when something is heard
}

// TestStatusesOfCommits: each commit keeps the last word about it.
func TestStatusesOfCommits(t *testing.T) {
	t.Parallel()
	r, past, now := rule(t, func(s *v1alpha1.NotificationSpec) { s.Provider, s.Limit.Burst = v1alpha1.NotifyCommitStatus, 9 }), &notice.Past{}, time.Now()
	first, second := failed(), failed()
	second.Revision = "refs/heads/main@sha1:1111111111111111111111111111111111111111"
	for _, m := range []notice.Message{first, second} {
		if why := r.Hear(past, m, now); why != "" {
			t.Error(why)
		}
	}
	for _, want := range []string{first.Revision, second.Revision} {
		if m, _ := r.Next(past, now); m == nil || m.Revision != want {
			t.Errorf("told %+v, want of %s", m, want)
		}
	}
	if first.Revision = ""; r.Concerns(first, nil) {
		t.Error("there is no commit to tell of")
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*v1alpha1.NotificationSpec){
		"spec.limit":    func(s *v1alpha1.NotificationSpec) { s.Limit.Burst = 0 },
		"spec.template": func(s *v1alpha1.NotificationSpec) { s.Template = "{{" },
		"spec.selector": func(s *v1alpha1.NotificationSpec) {
			s.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
		},
	} {
		if _, err := notice.Parse(spec(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	var all time.Duration
	for failures := 1; ; failures++ {
		wait, again := notice.Backoff(failures)
		if !again {
			if all < 30*time.Second || all > 5*time.Minute {
				t.Errorf("given up after %s", all)
			}
			return
		}
		all += wait
	}
}
