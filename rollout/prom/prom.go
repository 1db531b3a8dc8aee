// Package prom measures with a Prometheus: raw counters, histogram buckets and values of queries.
//
// Every answer is what the server has at one moment. An outage, a timeout, a refusal and an answer of another shape are
// errors, an empty answer is empty, and NaN is NaN: a number that the server did not say is never given. What follows
// from that is decided elsewhere. Errors name the server without credentials.
package prom

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

// DefaultTimeout is that of one query.
const DefaultTimeout = 10 * time.Second

// Options of a Source.
type Options struct {
	// URL of the server, with the path below which its API is.
	URL string
	// Timeout of one query; zero is DefaultTimeout. The server is told too, so that it gives up as well.
	Timeout time.Duration
	// Transport is how the server is reached; nil is plain, without credentials, by the environment's proxies.
	Transport http.RoundTripper
}

// Source is one Prometheus.
type Source struct {
	api     prometheus.API
	name    string // for errors
	timeout time.Duration
	close   func()
}

// New makes a Source. It sends nothing.
func New(options Options) (*Source, error) {
	address, err := parse(options.URL)
	if err != nil {
		return nil, err
	}
	closing := func() {}
	if options.Transport == nil {
		plain := http.DefaultTransport.(*http.Transport).Clone()
		options.Transport, closing = plain, plain.CloseIdleConnections
	}
	client, err := api.NewClient(api.Config{Address: address.String(), Client: &http.Client{
		Transport: &bounded{options.Transport},
		// credentials are for the server that was named, and for no other
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}})
	if err != nil {
		return nil, fmt.Errorf("prometheus %s: %w", address.Redacted(), err)
	}
	s := &Source{api: prometheus.NewAPI(client), name: address.Redacted(), timeout: options.Timeout, close: closing}
	if s.timeout <= 0 {
		s.timeout = DefaultTimeout
	}
	return s, nil
}

// maxAnswer bounds what one answer may cost; thousands of series fit.
const maxAnswer = 16 << 20

// bounded bounds answers.
type bounded struct{ next http.RoundTripper }

func (b *bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, err
}

func parse(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("prometheus: the URL cannot be read (write http://HOST:PORT)") // err quotes it, with what credentials it has
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("prometheus %s: not an http or https URL (write http://HOST:PORT)", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("prometheus %s: credentials do not belong into the URL (put them into a Secret)", u.Redacted())
	}
	return u, nil
}

// bare takes the address out of an error: the caller names the server.
func bare(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Close ends connections that are kept open, except those of a Transport that was given.
func (s *Source) Close() { s.close() }

// Values are the results of a query at that time, one for each series, in the server's order.
func (s *Source) Values(ctx context.Context, query string, at time.Time) ([]float64, error) {
	vector, err := s.query(ctx, query, at)
	if err != nil {
		return nil, err
	}
	var values []float64
	for _, sample := range vector {
		values = append(values, float64(sample.Value))
	}
	return values, nil
}

// Reading are raw counters at that time. The query has to select series or to sum over few labels; a rate is no counter.
func (s *Source) Reading(ctx context.Context, query string, at time.Time) (analysis.Reading, error) {
	vector, err := s.query(ctx, query, at)
	if err != nil {
		return nil, err
	}
	reading := analysis.Reading{}
	for _, sample := range vector {
		series := labels(sample.Metric)
		if _, twice := reading[series]; twice {
			return nil, s.err(query, fmt.Errorf("two series are called %s (the query joins metrics that differ in name only)", series))
		}
		reading[series] = float64(sample.Value)
	}
	return reading, nil
}

// Requests reads the counters of all and of bad requests at the same time, so that they fit together. A scrape may become
// visible between the two queries: the bad ones are read first, so that none is ever counted without being among all.
func (s *Source) Requests(ctx context.Context, total, bad string, at time.Time) (analysis.Requests, error) {
	some, err := s.Reading(ctx, bad, at)
	if err != nil {
		return analysis.Requests{}, err
	}
	all, err := s.Reading(ctx, total, at)
	if err != nil {
		return analysis.Requests{}, err
	}
	return analysis.Requests{Total: all, Bad: some}, nil
}

// Histogram reads the buckets of a classic histogram at that time: series with the label le.
func (s *Source) Histogram(ctx context.Context, query string, at time.Time) (analysis.Histogram, error) {
	vector, err := s.query(ctx, query, at)
	if err != nil {
		return nil, err
	}
	histogram := analysis.Histogram{}
	for _, sample := range vector {
		le := string(sample.Metric[model.BucketLabel])
		bound, err := strconv.ParseFloat(le, 64)
		if err != nil || math.IsNaN(bound) {
			return nil, s.err(query, fmt.Errorf("series %s has no bucket's bound in le (select NAME_bucket and keep le in sums)", labels(sample.Metric)))
		}
		rest := sample.Metric.Clone()
		delete(rest, model.BucketLabel)
		series := labels(rest)
		if histogram[series] == nil {
			histogram[series] = map[float64]float64{}
		}
		if _, twice := histogram[series][bound]; twice {
			return nil, s.err(query, fmt.Errorf("two series are called %s with le=%s", series, le))
		}
		histogram[series][bound] = float64(sample.Value)
	}
	return histogram, nil
}

// labels name a series. Sums have no metric name; it is left out everywhere, so that bad requests can be told to be some
// of all requests.
func labels(metric model.Metric) string {
	rest := metric.Clone()
	delete(rest, model.MetricNameLabel)
	return rest.String()
}

func (s *Source) query(ctx context.Context, query string, at time.Time) (model.Vector, error) {
	if at.IsZero() {
		return nil, s.err(query, errors.New("no time is given"))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("no answer within %s", s.timeout))
	defer cancel()
	value, warnings, _, err := s.api.Query(ctx, query, at, prometheus.WithTimeout(s.timeout))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, s.err(query, context.Cause(ctx))
	case err != nil:
		return nil, s.err(query, bare(err))
	case len(warnings) > 0:
		return nil, s.err(query, fmt.Errorf("the answer may be incomplete: %v", []string(warnings)))
	}
	switch result := value.(type) {
	case model.Vector:
		for _, sample := range result {
			if sample.Histogram != nil {
				return nil, s.err(query, fmt.Errorf("series %s is a native histogram (select classic buckets)", labels(sample.Metric)))
			}
		}
		return result, nil
	case *model.Scalar:
		return model.Vector{{Value: result.Value, Timestamp: result.Timestamp}}, nil
	default:
		return nil, s.err(query, fmt.Errorf("the result is a %s and not a vector (take the [...] away)", value.Type()))
	}
}

func (s *Source) err(query string, err error) error {
	return fmt.Errorf("prometheus %s: query %q: %w", s.name, query, err)
}
