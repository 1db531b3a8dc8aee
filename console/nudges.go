package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Nudge is a hint that a ref of a repository may have moved.
type Nudge struct {
	URL string `json:"url"`
	Ref string `json:"ref"`
}

// backlog is how many nudges may wait for one subscriber.
const backlog = 32

// Hub hands nudges to everybody who listens. Nobody can make it wait.
type Hub struct {
	most int

	mu   sync.Mutex
	subs map[chan Nudge]bool
}

// NewHub returns a Hub for at most so many subscribers; 0 stands for 1000.
func NewHub(most int) *Hub {
	return &Hub{most: or(most, 1000), subs: map[chan Nudge]bool{}}
}

// Publish tells every subscriber. One whose backlog is full is dropped: it
// connects again and looks at everything, since it cannot know what it missed.
func (h *Hub) Publish(n Nudge) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		select {
		case sub <- n:
		default:
			delete(h.subs, sub)
			close(sub)
		}
	}
}

// Subscribe returns a channel of nudges, closed when its reader is too slow, and
// a function that ends the subscription; false if there is no room.
func (h *Hub) Subscribe() (nudges <-chan Nudge, end func(), ok bool) {
	sub := make(chan Nudge, backlog)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= h.most {
		return nil, nil, false
	}
	h.subs[sub] = true
	return sub, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, sub)
	}, true
}

// Subscribers counts who listens now.
func (h *Hub) Subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

// writeWithin is how long a client may take to accept one event.
const writeWithin = 10 * time.Second

func (s *Server) getNudges(w http.ResponseWriter, r *http.Request) {
	nudges, end, ok := s.nudges.Subscribe()
	if !ok {
		w.Header().Set("Retry-After", "30")
		answer(w, http.StatusServiceUnavailable, Answer{Error: "too many listen for nudges"})
		return
	}
	defer end()
	stream := http.NewResponseController(w)
	send := func(text string) bool {
		if err := stream.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
			return false
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		// HTTP/2 resets a stream when its deadline passes, also while nothing is written.
		return stream.Flush() == nil && stream.SetWriteDeadline(time.Time{}) == nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // else nginx keeps the events to itself
	if !send(": connected\n\n") {
		return
	}
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		text := ": still here\n\n"
		select {
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		case n, open := <-nudges:
			if !open {
				s.log.Info("listener dropped: too slow", "remote", r.RemoteAddr)
				return
			}
			data, err := json.Marshal(n)
			if err != nil {
				continue
			}
			text = fmt.Sprintf("data: %s\n\n", data)
		case <-beat.C:
		}
		if !send(text) {
			return
		}
	}
}
