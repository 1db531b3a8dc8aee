package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longestRest bounds how long a registry may send us away.
const longestRest = time.Hour

// BusyError is a registry that said when to ask again.
type BusyError struct {
	Host string
	wait time.Duration
}

// Error names the registry and the time.
func (e *BusyError) Error() string {
	return fmt.Sprintf("registry %s asks to wait for %s", e.Host, e.wait.Round(time.Second))
}

// RetryAfter is how long to wait before asking again.
func (e *BusyError) RetryAfter() time.Duration { return e.wait }

func defaultTransport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	t.ResponseHeaderTimeout = 20 * time.Second
	t.MaxIdleConnsPerHost = 4
	return t
}

// polite sends nothing in the clear but to hosts of loopback, leaves hosts alone that asked for it, and bounds what is
// read of an answer. The library takes private addresses for hosts without TLS, and a registry can redirect to where it
// likes; both get TLS.
type polite struct {
	next  http.RoundTripper
	store *Store
}

func (p *polite) RoundTrip(request *http.Request) (*http.Response, error) {
	host := request.URL.Host
	if left := p.store.rests(host); left > 0 {
		return nil, &BusyError{Host: host, wait: left}
	}
	if request.URL.Scheme == "http" && !loopback(request.URL.Hostname()) {
		request = request.Clone(request.Context())
		request.URL.Scheme = "https"
	}
	response, err := p.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		now := p.store.now()
		if at, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			now = at // a date is one of the registry's clock, which may be another
		}
		if wait := retryAfter(response.Header.Get("Retry-After"), now); wait > 0 {
			_ = response.Body.Close()
			p.store.rest(host, wait)
			return nil, &BusyError{Host: host, wait: wait}
		}
	}
	limit := p.store.limits.Archive
	if strings.HasSuffix(request.URL.Path, "/tags/list") || strings.HasSuffix(request.URL.Path, "/index.yaml") {
		limit = p.store.limits.Index
	}
	response.Body = body{
		Reader: &capped{next: response.Body, left: limit, what: fmt.Sprintf("more than %d bytes sent by %s", limit, host)},
		Closer: response.Body,
	}
	return response, nil
}

type body struct {
	io.Reader
	io.Closer
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	var wait time.Duration
	if seconds, err := strconv.Atoi(header); err == nil {
		wait = time.Duration(min(max(seconds, 0), int(longestRest/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), longestRest)
}

func (s *Store) rest(host string, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting[host] = s.now().Add(wait)
}

func (s *Store) rests(host string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.resting[host].Sub(s.now())
	if left <= 0 {
		delete(s.resting, host)
	}
	return left
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// silent reports whether err says that there was no whole answer.
func silent(err error) bool {
	var network interface{ Timeout() bool } // net.Error and url.Error
	return errors.As(err, &network) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}
