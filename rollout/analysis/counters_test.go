package analysis_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

func TestRequestsSince(t *testing.T) {
	type readings = analysis.Reading
	for name, c := range map[string]struct {
		before, now analysis.Requests
		want        analysis.Counts
		gap         string
	}{
		"one pod":       {requests(10, 1), requests(25, 3), analysis.Counts{Total: 15, Bad: 2}, ""},
		"no request":    {requests(10, 1), requests(10, 1), analysis.Counts{}, ""},
		"several pods":  {analysis.Requests{Total: readings{"a": 1, "b": 2}, Bad: readings{"a": 0, "b": 0}}, analysis.Requests{Total: readings{"a": 5, "b": 9}, Bad: readings{"a": 1, "b": 2}}, analysis.Counts{Total: 11, Bad: 3}, ""},
		"a new pod":     {requests(10, 1), analysis.Requests{Total: readings{"a": 12, "b": 1e6}, Bad: readings{"a": 1, "b": 1e5}}, analysis.Counts{Total: 2}, ""},
		"first reading": {analysis.Requests{}, requests(10, 1), analysis.Counts{}, analysis.ReasonNoData},
		"all are new":   {requests(10, 1), analysis.Requests{Total: readings{"b": 1}, Bad: readings{"b": 1}}, analysis.Counts{}, analysis.ReasonNoData},
		"a pod is gone": {analysis.Requests{Total: readings{"a": 1, "b": 2}, Bad: readings{"a": 0, "b": 0}}, requests(9, 0), analysis.Counts{}, analysis.ReasonNoData},
		"no data":       {requests(10, 1), analysis.Requests{}, analysis.Counts{}, analysis.ReasonNoData},
		"no bad series": {requests(10, 1), analysis.Requests{Total: readings{"a": 12}}, analysis.Counts{}, analysis.ReasonNoData},
		"never any bad series": {
			analysis.Requests{Total: readings{"a": 10}}, analysis.Requests{Total: readings{"a": 12}}, analysis.Counts{}, analysis.ReasonNoData,
		},
		"restarted":            {requests(10, 1), requests(2, 0), analysis.Counts{}, analysis.ReasonReset},
		"one of two restarted": {analysis.Requests{Total: readings{"a": 9, "b": 9}, Bad: readings{"a": 0, "b": 0}}, analysis.Requests{Total: readings{"a": 1000, "b": 1}, Bad: readings{"a": 0, "b": 0}}, analysis.Counts{}, analysis.ReasonReset},
		"bad ones were reset":  {requests(10, 5), requests(12, 1), analysis.Counts{}, analysis.ReasonReset},
		"NaN":                  {requests(10, 1), requests(math.NaN(), 1), analysis.Counts{}, analysis.ReasonNotANumber},
		"NaN before":           {requests(math.NaN(), 1), requests(10, 1), analysis.Counts{}, analysis.ReasonNotANumber},
		"infinite":             {requests(10, 1), requests(math.Inf(1), 1), analysis.Counts{}, analysis.ReasonNotANumber},
		"negative":             {requests(10, 1), requests(-3, 1), analysis.Counts{}, analysis.ReasonNotANumber},
		"a rate":               {requests(0.25, 0), requests(0.5, 0), analysis.Counts{}, analysis.ReasonNotANumber},
		"too many to tell":     {requests(10, 1), requests(1e17, 1), analysis.Counts{}, analysis.ReasonNotANumber},
		"more bad than all":    {requests(10, 1), requests(12, 9), analysis.Counts{}, analysis.ReasonInconsistent},
		"a new pod is not a NaN": {
			requests(10, 1), analysis.Requests{Total: readings{"a": 12, "b": math.NaN()}, Bad: readings{"a": 1}}, analysis.Counts{}, analysis.ReasonNotANumber,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.now.Since(c.before)
			var gap *analysis.Gap
			switch {
			case c.gap == "" && err != nil:
				t.Error(err)
			case c.gap != "" && (!errors.As(err, &gap) || gap.Reason != c.gap):
				t.Errorf("%v, want %s", err, c.gap)
			case got != c.want:
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func requests(total, bad float64) analysis.Requests {
	return analysis.Requests{Total: analysis.Reading{"a": total}, Bad: analysis.Reading{"a": bad}}
}

func histogram(counts ...float64) map[float64]float64 {
	le := []float64{0.1, 0.25, math.Inf(1)}
	h := map[float64]float64{}
	for i, n := range counts {
		h[le[i]] = n
	}
	return h
}

func TestHistogramSince(t *testing.T) {
	type h = analysis.Histogram
	for name, c := range map[string]struct {
		before, now h
		want        []int64
		gap         string
	}{
		"one pod":            {h{"a": histogram(1, 2, 3)}, h{"a": histogram(2, 5, 9)}, []int64{1, 3, 6}, ""},
		"two pods":           {h{"a": histogram(1, 2, 3), "b": histogram(0, 0, 0)}, h{"a": histogram(2, 5, 9), "b": histogram(1, 1, 1)}, []int64{2, 4, 7}, ""},
		"a new pod":          {h{"a": histogram(1, 2, 3)}, h{"a": histogram(2, 5, 9), "b": histogram(7, 7, 7)}, []int64{1, 3, 6}, ""},
		"first reading":      {nil, h{"a": histogram(2, 5, 9)}, nil, analysis.ReasonNoData},
		"no data":            {h{"a": histogram(1, 2, 3)}, nil, nil, analysis.ReasonNoData},
		"a pod is gone":      {h{"a": histogram(1, 2, 3), "b": histogram(1, 2, 3)}, h{"a": histogram(2, 5, 9)}, nil, analysis.ReasonNoData},
		"restarted":          {h{"a": histogram(5, 6, 7)}, h{"a": histogram(1, 1, 1)}, nil, analysis.ReasonReset},
		"NaN":                {h{"a": histogram(5, 6, 7)}, h{"a": histogram(5, math.NaN(), 7)}, nil, analysis.ReasonNotANumber},
		"no +Inf":            {h{"a": {0.1: 1, 0.25: 1}}, h{"a": {0.1: 2, 0.25: 3}}, nil, analysis.ReasonInconsistent},
		"a bucket more":      {h{"a": {0.1: 1, math.Inf(1): 1}}, h{"a": histogram(2, 2, 2)}, nil, analysis.ReasonInconsistent},
		"a bucket less":      {h{"a": histogram(2, 2, 2)}, h{"a": {0.1: 3, math.Inf(1): 3}}, nil, analysis.ReasonInconsistent},
		"counts that fall":   {h{"a": histogram(0, 0, 0)}, h{"a": histogram(5, 3, 9)}, nil, analysis.ReasonInconsistent},
		"pods that disagree": {h{"a": histogram(0, 0, 0), "b": {1: 0, math.Inf(1): 0}}, h{"a": histogram(1, 1, 1), "b": {1: 1, math.Inf(1): 1}}, nil, analysis.ReasonInconsistent},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.now.Since(c.before)
			var gap *analysis.Gap
			switch {
			case c.gap == "" && err != nil:
				t.Error(err)
			case c.gap != "" && (!errors.As(err, &gap) || gap.Reason != c.gap):
				t.Errorf("%v, want %s", err, c.gap)
			case !slices.Equal(got.Counts, c.want):
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
