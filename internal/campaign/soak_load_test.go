package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/bench/histogram"
	"github.com/trueup/trueup/internal/check"
)

// load sends events by a schedule, whether answers come or not: clients and ImageKit do
// not wait for each other. Every event is sent once.
type load struct {
	plan   *plan // of its files
	files  *catalogue
	keys   keys
	doors  []string
	tokens []string
	client *http.Client
	rate   float64 // events a second
	acked  func(check.Ack)

	mu       sync.Mutex // guards the rest
	took     histogram.Histogram
	answers  map[int]int64
	givenUp  int64 // arrivals for which nobody had a hand free
	wrong    []string
	inFlight int64
}

// most arrivals that may wait for a hand; beyond them some are given up, as in life.
const mostWaiting = 20_000

// run sends until ctx is done and returns when the last answer is there.
func (l *load) run(ctx context.Context) error {
	due := make(chan arrival, mostWaiting)
	var hands sync.WaitGroup
	for range 128 {
		hands.Go(func() {
			for a := range due {
				l.send(a)
			}
		})
	}
	rng := rand.New(rand.NewPCG(l.plan.seed, 5))
	at := time.Now()
	for n := 0; ; n++ {
		at = at.Add(time.Duration(rng.ExpFloat64() / l.rate * float64(time.Second)))
		wait := time.NewTimer(time.Until(at))
		if !comes(ctx, wait.C) {
			wait.Stop()
			break
		}
		select {
		case due <- arrival{n, at}:
		default:
			l.mu.Lock()
			l.givenUp++
			l.mu.Unlock()
		}
	}
	close(due)
	hands.Wait()
	l.client.CloseIdleConnections()
	return nil
}

// arrival is one event of the schedule.
type arrival struct {
	n   int
	due time.Time
}

// event is the n-th: half are reports, most of them by the file's own user, half webhooks.
func (l *load) event(n int) (a check.Ack) {
	file := int(l.plan.draw(n, "file") % uint64(l.plan.files))
	a = check.Ack{Door: check.Report, Genuine: true, FileID: l.files.id(file), User: userName(file % l.plan.users)}
	if l.plan.chance(n, "foreign") < 0.01 {
		a.User = userName((file + 1) % l.plan.users)
	}
	a.Body = fmt.Appendf(nil, `{"fileId":%q,"url":"https://%s.invalid/x.jpg","n":%d}`, a.FileID, unverified, n)
	if l.plan.chance(n, "door") < 0.5 {
		a.Door, a.User, a.Kind, a.WebhookID = check.Webhook, "", "file.updated", fmt.Sprintf("soak-%d-%d", l.plan.seed, n)
		a.Body = fmt.Appendf(nil, `{"id":%q,"type":"file.updated","data":{"fileId":%q,"name":"%s.jpg","updatedAt":%q}}`, a.WebhookID, a.FileID, unverified, stamp(l.files.updated[file]))
	}
	return a
}

func (l *load) send(at arrival) {
	a := l.event(at.n)
	a.SentAt = time.Now()
	l.count(func() { l.inFlight++ })
	status, raw := l.ask(at.n, &a)
	took := time.Since(at.due)
	if a.Status = status; status != 0 {
		a.AnsweredAt = time.Now()
	}
	if a.Door == check.Report && status == http.StatusAccepted {
		var said struct{ ReportID string }
		_ = json.Unmarshal(raw, &said)
		a.ReportID = said.ReportID
	}
	l.acked(a)
	l.count(func() {
		l.inFlight--
		l.answers[status]++
		switch {
		case status/100 == 2:
			l.took.Record(took)
		case status != 0 && status != http.StatusServiceUnavailable:
			l.wrong = append(l.wrong, fmt.Sprintf("event %d was answered %d: %.200s", at.n, status, raw))
		}
	})
}

func (l *load) count(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// ask makes the request; status 0 is a connection that broke.
func (l *load) ask(n int, a *check.Ack) (status int, body []byte) {
	path := "/save-metadata"
	if a.Door == check.Webhook {
		path = "/webhooks/imagekit"
	}
	r, err := http.NewRequest(http.MethodPost, l.doors[n%len(l.doors)]+path, bytes.NewReader(a.Body))
	if err != nil {
		return 0, []byte(err.Error())
	}
	r.Header.Set("Content-Type", "application/json")
	if a.Door == check.Report {
		r.Header.Set("Authorization", "Bearer "+l.tokens[l.userOf(a)])
	} else {
		for name, values := range signed(l.keys.webhook, "msg_"+a.WebhookID, a.Body, time.Now()) {
			r.Header[name] = values
		}
	}
	resp, err := l.client.Do(r)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return resp.StatusCode, raw
}

func (l *load) userOf(a *check.Ack) (user int) {
	_, _ = fmt.Sscanf(a.User, "user-%d", &user)
	return user
}
