package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/builder"
)

// LogEnd is the data of the event "end", the last one of a stream of logs.
type LogEnd struct {
	State  builder.State `json:"state"` // of the Job
	Reason string        `json:"reason,omitempty"`
}

const (
	eventStream = "text/event-stream"
	jsonLines   = "application/jsonl"
	// readAhead is how many lines may wait for one client. A client that takes none
	// for writeWithin loses its stream, and goes on behind the last line that it saw.
	readAhead = 64
)

// logRequest is what a client wants to see.
type logRequest struct {
	run, job string
	from     uint64 // the last line that it has seen
	follow   bool
	events   bool // server-sent ones; else lines of JSON
}

func parseLogRequest(r *http.Request) (logRequest, error) {
	q := logRequest{run: r.PathValue("id"), job: r.PathValue("job")}
	q.events = strings.Contains(r.Header.Get("Accept"), eventStream)
	q.follow = q.events
	from := r.Header.Get("Last-Event-ID")
	for name, values := range r.URL.Query() {
		value := values[len(values)-1]
		switch name {
		case "from":
			if from == "" { // else it is a client that connects again to the same address
				from = value
			}
		case "follow":
			follow, err := strconv.ParseBool(value)
			if err != nil {
				return q, fmt.Errorf("follow %q: want true or false", value)
			}
			q.follow = follow
		default:
			return q, fmt.Errorf("parameter %q: want from or follow", name)
		}
	}
	if from != "" {
		n, err := strconv.ParseUint(from, 10, 64)
		if err != nil {
			return q, fmt.Errorf("from %q: want the sequence of a line", from)
		}
		q.from = n
	}
	return q, nil
}

func (s *Server) getLogs(w http.ResponseWriter, r *http.Request) {
	q, err := parseLogRequest(r)
	if err != nil {
		answer(w, http.StatusBadRequest, Answer{Error: brief(err.Error())})
		return
	}
	run, err := s.runs.Run(r.Context(), q.run)
	if err == nil {
		_, err = jobOf(run, q.job)
	}
	if err != nil {
		s.failed(w, r, err)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		answer(w, http.StatusTooManyRequests, Answer{Error: fmt.Sprintf("%d clients read logs already (try again later)", cap(s.streams))})
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	lines := make(chan logLine, readAhead)
	reading.Go(func() { s.readLogs(ctx, q, lines) })
	stream := newLogStream(w, q.events)
	if !stream.begin() {
		return
	}
	s.streamLogs(ctx, q, stream, lines)
}

// logLine is what a reader of logs hands over; the last one has an error or ended.
type logLine struct {
	builder.Log
	err   error
	ended bool
}

// readLogs sends all lines and then how it ended, unless ctx ends first.
func (s *Server) readLogs(ctx context.Context, q logRequest, to chan<- logLine) {
	send := func(line logLine) bool {
		select {
		case to <- line:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for line, err := range s.runs.Logs(ctx, q.run, q.job, q.from, q.follow) {
		if !send(logLine{Log: line, err: err}) || err != nil {
			return
		}
	}
	send(logLine{ended: true})
}

// streamLogs writes until the lines end, the client goes, or the server stops.
func (s *Server) streamLogs(ctx context.Context, q logRequest, to *logStream, lines <-chan logLine) {
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-beat.C:
			if !to.beat() {
				return
			}
		case line := <-lines:
			switch {
			case line.err != nil:
				if ctx.Err() == nil {
					s.log.Error(line.err, "logs cannot be read", "run", q.run, "job", q.job)
				}
				return // without an end: the client comes again
			case line.ended:
				s.endLogs(ctx, q, to)
				return
			case !to.line(line.Log, len(lines) == 0):
				return
			}
		}
	}
}

// endLogs says how the Job ended. Where it has not, the stream just stops.
func (s *Server) endLogs(ctx context.Context, q logRequest, to *logStream) {
	run, err := s.runs.Run(ctx, q.run)
	if err != nil {
		return
	}
	if job, err := jobOf(run, q.job); err == nil && (job.State.Ended() || run.State.Ended()) {
		to.end(LogEnd{State: job.State, Reason: job.Reason})
	}
}

func jobOf(run builder.Run, name string) (builder.Job, error) {
	names := make([]string, 0, len(run.Jobs))
	for _, job := range run.Jobs {
		if job.Name == name {
			return job, nil
		}
		names = append(names, job.Name)
	}
	return builder.Job{}, fmt.Errorf("run %s: job %q: %w (it has %s)", run.ID, brief(name), builder.ErrNotFound, strings.Join(names, ", "))
}

// logStream writes lines in one of two forms. Its methods report whether the client still takes them.
type logStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	events  bool
}

func newLogStream(w http.ResponseWriter, events bool) *logStream {
	return &logStream{w: w, control: http.NewResponseController(w), events: events}
}

func (l *logStream) begin() bool {
	kind := jsonLines
	if l.events {
		kind = eventStream
	}
	header := l.w.Header()
	header.Set("Content-Type", kind)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Accel-Buffering", "no") // else nginx keeps the lines to itself
	if l.events {
		return l.write(": connected\n\n", true)
	}
	l.w.WriteHeader(http.StatusOK)
	return l.write("", true)
}

func (l *logStream) write(text string, flush bool) bool {
	if l.control.SetWriteDeadline(time.Now().Add(writeWithin)) != nil {
		return false
	}
	if _, err := l.w.Write([]byte(text)); err != nil {
		return false
	}
	if flush && l.control.Flush() != nil {
		return false
	}
	// HTTP/2 resets a stream when its deadline passes, also while nothing is written.
	return l.control.SetWriteDeadline(time.Time{}) == nil
}

func (l *logStream) beat() bool { return !l.events || l.write(": still here\n\n", true) }

func (l *logStream) line(line builder.Log, flush bool) bool {
	data, err := json.Marshal(line)
	if err != nil {
		return false
	}
	if l.events {
		return l.write(fmt.Sprintf("id: %d\ndata: %s\n\n", line.Sequence, data), flush)
	}
	return l.write(string(data)+"\n", flush)
}

func (l *logStream) end(end LogEnd) {
	if data, err := json.Marshal(end); err == nil && l.events {
		l.write("event: end\ndata: "+string(data)+"\n\n", true)
	}
}
