package queue

import (
	"fmt"
	"regexp"
	"slices"
	"sync"
)

var validTopic = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// noticeBacklog bounds what waits for one listener; what is beyond it is dropped.
const noticeBacklog = 64

// listeners are those of one Door.
type listeners struct {
	mu   sync.Mutex
	all  []*listening
	over bool
}

// listening is one of them.
type listening struct {
	topic string
	heard chan []byte
	once  sync.Once
	gone  chan struct{} // closed when it has stopped
}

func (l *listening) stop() { l.once.Do(func() { close(l.gone) }) }

// Tell sends a notice to whoever listens now, in this process or another. It may get lost.
func (d *Door) Tell(topic string, payload []byte) error {
	if !validTopic.MatchString(topic) {
		return fmt.Errorf("queue: notice topic %q", topic)
	}
	err := d.call(d.ctx, "Tell", topic, func() error { return d.stream.spreadNews(topic, payload) })
	if err != nil {
		return fmt.Errorf("queue: tell %s: %w", topic, err)
	}
	return nil
}

func (s *Stream) spreadNews(topic string, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	for _, d := range s.doors {
		d.listener.hear(topic, payload)
	}
	return nil
}

func (l *listeners) hear(topic string, payload []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.all {
		if one.topic != topic {
			continue
		}
		select {
		case one.heard <- slices.Clone(payload):
		default: // it is too slow
		}
	}
}

// Listen calls f for each notice on topic, one after the other, until stop.
func (d *Door) Listen(topic string, f func(payload []byte)) (stop func(), err error) {
	if !validTopic.MatchString(topic) {
		return nil, fmt.Errorf("queue: notice topic %q", topic)
	}
	one := &listening{topic: topic, heard: make(chan []byte, noticeBacklog), gone: make(chan struct{})}
	if !d.listener.add(one) {
		return nil, fmt.Errorf("queue: listen to %s: %w", topic, errClosed)
	}
	d.done.Go(func() {
		for {
			select {
			case <-one.gone:
				return
			case payload := <-one.heard:
				f(payload)
			}
		}
	})
	return func() { d.listener.remove(one) }, nil
}

func (l *listeners) add(one *listening) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.all = append(l.all, one)
	return true
}

func (l *listeners) remove(one *listening) {
	one.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(o *listening) bool { return o == one })
}

// stopAll ends all of them, and lets no other begin.
func (l *listeners) stopAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, one := range l.all {
		one.stop()
	}
	l.all = nil
}
