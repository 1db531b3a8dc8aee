package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Serving returns an http.Server with limits on what a client may make it wait
// for or hold. Streams lift the limit on writing for themselves.
func Serving(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// read decodes a body that holds exactly one JSON object of known fields; else it answers.
func (s *Server) read(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		answer(w, http.StatusUnsupportedMediaType, Answer{Error: "want Content-Type: application/json"})
		return false
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, more := decoder.Token(); more == nil {
			err = errors.New("more than one value")
		} else if !errors.Is(more, io.EOF) {
			err = more
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		answer(w, http.StatusRequestEntityTooLarge, Answer{Error: fmt.Sprintf("body: larger than %d bytes", large.Limit)})
	case err != nil:
		answer(w, http.StatusBadRequest, Answer{Error: "body: " + brief(err.Error())})
	}
	return err == nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(body) // the client has gone
}

// brief cuts what strangers send before it reaches a log or an answer.
func brief(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// observed counts requests and survives panics.
func (s *Server) observed(pattern string, next http.HandlerFunc) http.Handler {
	method, path, _ := strings.Cut(pattern, " ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := &statusWriter{ResponseWriter: w}
		defer func() {
			if thrown := recover(); thrown != nil {
				if thrown == http.ErrAbortHandler { //nolint:errorlint // it is thrown as it is
					panic(thrown)
				}
				s.log.Error(fmt.Errorf("panic: %v", thrown), "request failed", "method", method, "path", path, "stack", string(debug.Stack()))
				if recorder.status == 0 {
					answer(recorder, http.StatusInternalServerError, Answer{Error: "internal error"})
				}
			}
			s.metrics.requests.WithLabelValues(method, path, strconv.Itoa(max(recorder.status, http.StatusOK))).Inc()
		}()
		next(recorder, r)
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
