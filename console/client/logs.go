package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
)

// End is how a Job ended.
type End struct {
	State  builder.State `json:"state"`
	Reason string        `json:"reason,omitempty"`
}

// mostLine bounds one line of a stream, in bytes.
const mostLine = 4 << 20

func logPath(run, job string) string {
	return "/v1/runs/" + url.PathEscape(run) + "/jobs/" + url.PathEscape(job) + "/logs"
}

// Logs calls each for the lines of a Job that are there now.
func (c *Client) Logs(ctx context.Context, run, job string, each func(builder.Log) error) error {
	response, err := c.send(ctx, http.MethodGet, logPath(run, job)+"?follow=false", nil, http.Header{"Accept": {"application/jsonl"}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, mostLine)
	for lines.Scan() {
		var line builder.Log
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("server %s: line of a log: %w", c.base.Host, err)
		}
		if err := each(line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("server %s: logs of %s: %w (ask again)", c.base.Host, job, err)
	}
	return nil
}

// Follow calls each for the lines of a Job, those to come too, until it has ended.
// While the server is away it comes again and goes on behind the last line; each
// gets every line once. lost is called when a try has failed, and may be nil.
func (c *Client) Follow(ctx context.Context, run, job string, each func(builder.Log) error, lost func(error)) (End, error) {
	f := follower{client: c, path: logPath(run, job), each: each}
	for wait := c.backoff; ; wait = min(2*wait, 5*time.Second) {
		before := f.last
		end, err := f.stream(ctx)
		var mine callerError
		var refused *Error
		switch {
		case err == nil:
			return end, nil
		case errors.As(err, &mine):
			return End{}, mine.error
		case ctx.Err() != nil:
			return End{}, ctx.Err()
		case errors.As(err, &refused) && !refused.Temporary():
			return End{}, err
		}
		if lost != nil {
			lost(err)
		}
		if f.last != before {
			wait = c.backoff
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return End{}, ctx.Err()
		}
	}
}

// callerError is one of the function that takes the lines.
type callerError struct{ error }

// follower is one stream over several connections.
type follower struct {
	client *Client
	path   string
	each   func(builder.Log) error
	last   uint64 // sequence of the last line that was taken
}

var errCut = errors.New("the stream was cut")

// stream reads one connection to its end. Only with the event "end" there is no error.
func (f *follower) stream(ctx context.Context) (End, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{"Accept": {"text/event-stream"}}
	if f.last > 0 {
		header.Set("Last-Event-ID", strconv.FormatUint(f.last, 10))
	}
	response, err := f.client.send(ctx, http.MethodGet, f.path, nil, header)
	if err != nil {
		return End{}, err
	}
	defer response.Body.Close()
	dead := time.AfterFunc(silence, cancel) // a connection that says nothing any more is none
	defer dead.Stop()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, mostLine)
	kind, data := "", ""
	for lines.Scan() {
		dead.Reset(silence)
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if data != "" {
				if end, done, err := f.event(kind, data); done || err != nil {
					return end, err
				}
			}
			kind, data = "", ""
		case field == "event":
			kind = value
		case field == "data":
			data += value
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return End{}, fmt.Errorf("server %s: %w", f.client.base.Host, err)
	}
	return End{}, fmt.Errorf("server %s: %w", f.client.base.Host, errCut)
}

func (f *follower) event(kind, data string) (end End, done bool, err error) {
	if kind == "end" {
		if err := json.Unmarshal([]byte(data), &end); err != nil {
			return End{}, false, callerError{fmt.Errorf("server %s: end of a log: %w", f.client.base.Host, err)}
		}
		return end, true, nil
	}
	if kind != "" {
		return End{}, false, nil // of a newer server
	}
	var line builder.Log
	if err := json.Unmarshal([]byte(data), &line); err != nil {
		return End{}, false, callerError{fmt.Errorf("server %s: line of a log: %w", f.client.base.Host, err)}
	}
	if line.Sequence <= f.last {
		return End{}, false, nil
	}
	if err := f.each(line); err != nil {
		return End{}, false, callerError{err}
	}
	f.last = line.Sequence
	return End{}, false, nil
}
