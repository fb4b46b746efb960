package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// Acts of clients that report.

// marker is planted in what senders say; it must never reach the table.
const marker = "planted-by-a-sender"

// reportLater reports one's own upload after a moment, mostly.
func (p *people) reportLater(d draw, u *upload) {
	if !d.chance(0.75) {
		return
	}
	if sleep(p.w.ctx, d.span(0, 10*time.Second)) == nil {
		p.report(d, u.user, u.id)
	}
}

// report tells trueup of files, and again where it was not heard, as clients do.
func (p *people) report(d draw, user string, ids ...string) {
	tries := 1 + d.IntN(4)
	for range tries {
		if p.reportOnce(d, user, jwtSecret, ids...) || sleep(p.w.ctx, d.span(500*time.Millisecond, 10*time.Second)) != nil {
			return
		}
	}
}

// reportOnce says whether the report was answered for good.
func (p *people) reportOnce(d draw, user, secret string, ids ...string) bool {
	w := p.w
	bodies := make([]json.RawMessage, len(ids))
	for i, id := range ids {
		bodies[i], _ = json.Marshal(map[string]string{"fileId": id, "url": "https://evil.example/" + marker + "?" + id})
	}
	raw := []byte(bodies[0])
	if len(ids) > 1 {
		raw, _ = json.Marshal(bodies)
	}
	sent := time.Now()
	answer, err := w.knock(d.Uint64(), asked{method: http.MethodPost, path: "/save-metadata", header: p.token(user, secret), body: raw})
	if errors.Is(err, errNobody) {
		return false
	}
	receipts := receiptsOf(answer.body)
	for i, id := range ids {
		a := check.Ack{Door: check.Report, SentAt: sent, Status: answer.status, Genuine: secret == jwtSecret, FileID: id, User: user, Body: bodies[i]}
		if err == nil {
			a.AnsweredAt = time.Now()
		}
		if answer.status == http.StatusAccepted && i < len(receipts) {
			a.ReportID = receipts[i]
		}
		w.record.ack(a)
	}
	w.trace.say("people", "%s reports %s: %d", user, strings.Join(ids, " "), answer.status)
	if answer.status == http.StatusAccepted {
		p.ask(d, user, receipts)
	}
	return err == nil && answer.status != http.StatusServiceUnavailable
}

// receiptsOf are the report ids of an answer, in order.
func receiptsOf(body []byte) []string {
	var one struct {
		ReportID string
		Reports  []struct{ ReportID string }
	}
	if json.Unmarshal(body, &one) != nil {
		return nil
	}
	if one.ReportID != "" {
		return []string{one.ReportID}
	}
	var all []string
	for _, r := range one.Reports {
		all = append(all, r.ReportID)
	}
	return all
}

// ask asks what became of a report, now and then as somebody whose report it is not.
func (p *people) ask(d draw, user string, receipts []string) {
	if len(receipts) == 0 || !d.chance(0.3) {
		return
	}
	asker := user
	if d.chance(0.2) {
		asker = "somebody-else"
	}
	answer, err := p.call(d, asker, http.MethodGet, "/reports/"+receipts[0]+one(d, "", "?wait=5s", "?wait=20s"), nil)
	if err != nil || answer.status == http.StatusServiceUnavailable {
		return
	}
	if want := map[bool]int{true: http.StatusOK, false: http.StatusNotFound}[asker == user]; answer.status != want {
		p.w.record.wrong(receipts[0], "GET /reports by %s answers %d, want %d: %s", asker, answer.status, want, answer.body)
	}
}

func (p *people) reportOne(d draw) {
	if u := p.one(d); u != nil {
		p.report(d, p.user(d), u.id)
	}
}

func (p *people) reportTwice(d draw) {
	if u := p.one(d); u != nil {
		p.w.reached.Hit("client/duplicate")
		user := p.user(d)
		for range 2 + d.IntN(4) {
			p.reportOnce(d, user, jwtSecret, u.id)
		}
	}
}

// reportEarly reports an upload in the same instant, before anybody can see it.
func (p *people) reportEarly(d draw) {
	if u := p.uploadServer(d); u != nil {
		p.w.reached.Hit("client/early")
		p.report(d, p.user(d), u.id)
	}
}

// reportForeign claims a file that is somebody else's, or was long ago.
func (p *people) reportForeign(d draw) {
	p.mu.Lock()
	var ids []string
	for _, u := range p.files {
		ids = append(ids, u.id)
	}
	p.mu.Unlock()
	if len(ids) > 0 {
		p.w.reached.Hit("client/foreign")
		p.report(d, "attacker", ids[d.IntN(len(ids))])
	}
}

// reportForged names a file that never was, or nothing that could name one.
func (p *people) reportForged(d draw) {
	p.w.reached.Hit("client/forged-id")
	p.report(d, "attacker", one(d, fmt.Sprintf("%024x", d.Uint64()), "../../etc/passwd", "x?y=z", strings.Repeat("a", 64), "short", ""))
}

// reportMany reports several files in one request.
func (p *people) reportMany(d draw) {
	here := p.here()
	if len(here) < 2 {
		return
	}
	var ids []string
	for _, u := range here[:min(len(here), 2+d.IntN(12))] {
		ids = append(ids, u.id)
	}
	p.w.reached.Hit("client/array")
	p.report(d, p.user(d), ids...)
}

// reportRivals has several users claim one fresh file, in whatever order they get there.
func (p *people) reportRivals(d draw) {
	u := p.uploadServer(d)
	if u == nil {
		return
	}
	p.w.reached.Hit("client/rival")
	for range 2 + d.IntN(3) {
		one := newDraw(d.Uint64(), 11)
		p.w.later(one.span(0, 5*time.Second), func() { p.report(one, p.user(one), u.id) })
	}
}

// badToken reports with a token that nobody gave out.
func (p *people) badToken(d draw) {
	p.w.reached.Hit("client/forged-token")
	id := fmt.Sprintf("%024x", d.Uint64())
	if u := p.one(d); u != nil && d.chance(0.5) {
		id = u.id
	}
	p.reportOnce(d, "attacker", "a-secret-that-nobody-gave-out-0123456789", id)
}
