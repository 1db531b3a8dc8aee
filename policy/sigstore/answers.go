package sigstore

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// answers remembers a bounded number of answers, those that were asked for last.
type answers struct {
	size int

	mu    sync.Mutex
	byID  map[[sha256.Size]byte]*list.Element
	order *list.List // of remembered, the last one asked for in front
}

type remembered struct {
	id     [sha256.Size]byte
	answer answer
}

func newAnswers(size int) *answers {
	return &answers{size: size, byID: map[[sha256.Size]byte]*list.Element{}, order: list.New()}
}

func (a *answers) get(id [sha256.Size]byte, now time.Time) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	element, known := a.byID[id]
	if !known {
		return answer{}, false
	}
	found, _ := element.Value.(remembered)
	if found.answer.refused != nil && !now.Before(found.answer.until) {
		a.order.Remove(element)
		delete(a.byID, id)
		return answer{}, false
	}
	a.order.MoveToFront(element)
	return found.answer, true
}

func (a *answers) put(id [sha256.Size]byte, given answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if element, known := a.byID[id]; known {
		a.order.Remove(element)
	}
	a.byID[id] = a.order.PushFront(remembered{id: id, answer: given})
	for a.order.Len() > a.size {
		last := a.order.Back()
		oldest, _ := a.order.Remove(last).(remembered)
		delete(a.byID, oldest.id)
	}
}
