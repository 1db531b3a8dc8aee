package run

import (
	"context"
	"sync"
	"time"
)

// turns gives each key to one taker at a time. A key that is added while it is taken comes once more afterwards.
type turns struct {
	mu     sync.Mutex
	queue  []string
	state  map[string]turn
	timers map[string]*time.Timer
	wake   chan struct{}
}

type turn uint8

const (
	waiting turn = iota + 1
	taken
	takenAndWanted
)

func newTurns() *turns {
	return &turns{state: map[string]turn{}, timers: map[string]*time.Timer{}, wake: make(chan struct{}, 1)}
}

func (t *turns) add(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state[key] {
	case waiting, takenAndWanted:
		return
	case taken:
		t.state[key] = takenAndWanted
		return
	}
	t.state[key] = waiting
	t.queue = append(t.queue, key)
	t.signal()
}

// addAfter adds the key when d is over; the last call for a key counts.
func (t *turns) addAfter(key string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.timers[key]; old != nil {
		old.Stop()
	}
	t.timers[key] = time.AfterFunc(d, func() { t.add(key) })
}

// forget drops what would bring the key back by itself.
func (t *turns) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.timers[key]; old != nil {
		old.Stop()
		delete(t.timers, key)
	}
}

func (t *turns) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// take hands keys to do, each in its turn, until ctx ends. It may be called by many goroutines.
func (t *turns) take(ctx context.Context, do func(key string)) {
	for ctx.Err() == nil {
		key, ok := t.pop()
		if !ok {
			select {
			case <-ctx.Done():
			case <-t.wake:
			}
			continue
		}
		do(key)
		t.done(key)
	}
}

func (t *turns) pop() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		return "", false
	}
	key := t.queue[0]
	t.queue = t.queue[1:]
	t.state[key] = taken
	if len(t.queue) > 0 {
		t.signal() // for the next taker: one signal may stand for many keys
	}
	return key, true
}

func (t *turns) done(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state[key] == takenAndWanted {
		t.state[key] = waiting
		t.queue = append(t.queue, key)
		t.signal()
		return
	}
	delete(t.state, key)
}
