package queue

import (
	"fmt"
	"regexp"

	"github.com/nats-io/nats.go"
)

var validTopic = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// noticeBacklog bounds what waits for one listener; what is beyond it is dropped.
const noticeBacklog = 4096

// Tell sends a notice to whoever listens now, in this process or another. It may
// get lost and nothing may depend on it: it saves somebody a wait, no more.
func (q *Queue) Tell(topic string, payload []byte) error {
	if !validTopic.MatchString(topic) {
		return fmt.Errorf("queue: notice topic %q", topic)
	}
	if err := q.nc.Publish(q.names.notice+topic, payload); err != nil {
		return fmt.Errorf("queue: tell %s: %w", topic, err)
	}
	return nil
}

// Listen calls f for each notice on topic, one after the other, until stop. f must
// not keep payload. After stop returns f may still be running once.
func (q *Queue) Listen(topic string, f func(payload []byte)) (stop func(), err error) {
	if !validTopic.MatchString(topic) {
		return nil, fmt.Errorf("queue: notice topic %q", topic)
	}
	sub, err := q.nc.Subscribe(q.names.notice+topic, func(m *nats.Msg) { f(m.Data) })
	if err != nil {
		return nil, fmt.Errorf("queue: listen to %s: %w", topic, err)
	}
	if err := sub.SetPendingLimits(noticeBacklog, noticeBacklog<<10); err != nil {
		return nil, fmt.Errorf("queue: listen to %s: %w", topic, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // it fails only when the connection is closed
}
