package verify

import "slices"

// floorEvery: a class that waits gets at least every tenth call.
const floorEvery = 10

// waiter is one call that waits for its token.
type waiter struct {
	ready chan struct{}
	class Priority
}

// queue holds the waiting calls by class, each class first come, first served.
type queue struct {
	of [classes][]*waiter
	// passed counts the calls that left while this class waited.
	passed [classes]int
}

func (q *queue) len() int {
	n := 0
	for _, waiters := range q.of {
		n += len(waiters)
	}
	return n
}

func (q *queue) push(w *waiter) { q.of[w.class] = append(q.of[w.class], w) }

// remove takes w out; false means that it has been served.
func (q *queue) remove(w *waiter) bool {
	i := slices.Index(q.of[w.class], w)
	if i < 0 {
		return false
	}
	q.of[w.class] = slices.Delete(q.of[w.class], i, i+1)
	return true
}

// pop serves the highest class that waits, unless a lower one is due by its floor.
func (q *queue) pop() *waiter {
	class := q.next()
	for p := range q.of {
		if len(q.of[p]) > 0 {
			q.passed[p]++
		} else {
			q.passed[p] = 0
		}
	}
	q.passed[class] = 0
	w := q.of[class][0]
	q.of[class][0] = nil
	q.of[class] = q.of[class][1:]
	return w
}

func (q *queue) next() Priority {
	due, first := Priority(-1), Priority(-1)
	for p := range classes {
		if len(q.of[p]) == 0 {
			continue
		}
		if first < 0 {
			first = p
		}
		if q.passed[p] >= floorEvery-1 && (due < 0 || q.passed[p] > q.passed[due]) {
			due = p
		}
	}
	if due >= 0 {
		return due
	}
	return first
}
