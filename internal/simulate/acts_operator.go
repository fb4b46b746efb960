package simulate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Acts of an operator, over the operator API.

// operator asks the API; nil where it could not be asked or said no.
func (p *people) operator(d draw, method, path string, body any, into any) bool {
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	answer, err := p.w.operate(d.Uint64(), asked{method: method, path: path, body: raw})
	if err != nil {
		return false
	}
	p.w.trace.say("operator", "%s %s: %d", method, path, answer.status)
	if answer.status >= 500 && answer.status != http.StatusServiceUnavailable {
		p.w.record.wrong("operator", "%s %s answers %d: %s", method, path, answer.status, answer.body)
	}
	if answer.status/100 != 2 {
		return false
	}
	return into == nil || json.Unmarshal(answer.body, into) == nil
}

// replayDead replays all dead letters, and now and then twice at once.
func (p *people) replayDead(d draw) {
	var count struct{ Count int64 }
	if !p.operator(d, http.MethodGet, "/api/dead/count", nil, &count) {
		return
	}
	ask := map[string]any{"all": true, "note": "again"}
	if !p.operator(d, http.MethodPost, "/api/dead/replay", ask, nil) {
		return
	}
	p.w.reached.Hit("operator/replay")
	if d.chance(0.5) && p.operator(d, http.MethodPost, "/api/dead/replay", ask, nil) {
		p.w.reached.Hit("operator/replay-twice")
	}
}

func (p *people) recheck(d draw) {
	p.mu.Lock()
	var ids []string
	for _, u := range p.files {
		ids = append(ids, u.id)
	}
	p.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	d.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	if p.operator(d, http.MethodPost, "/api/recheck", map[string]any{"files": ids[:1+d.IntN(len(ids))]}, nil) {
		p.w.reached.Hit("operator/recheck")
	}
}

func (p *people) pauseResume(d draw) {
	if !p.operator(d, http.MethodPost, "/api/pause", map[string]any{"note": "wait"}, nil) {
		return
	}
	p.w.reached.Hit("operator/pause")
	_ = sleep(p.w.ctx, d.span(time.Second, 5*time.Minute))
	p.operator(d, http.MethodPost, "/api/resume", map[string]any{"note": "go on"}, nil)
}

func (p *people) assign(d draw) {
	u := p.one(d)
	if u == nil {
		return
	}
	if p.operator(d, http.MethodPost, pathOf("api", "files", u.id, "assign"), map[string]any{"user": p.user(d), "note": "asked for"}, nil) {
		p.w.reached.Hit("operator/assign")
	}
}

// aRun is what an operator reads of a run.
type aRun struct {
	ID         string
	State      string
	Candidates int64
	Fuse       string
}

func (p *people) runNow(d draw) {
	if p.operator(d, http.MethodPost, "/api/runs", map[string]any{"kind": "run"}, nil) {
		p.w.reached.Hit("operator/run")
	}
}

// planApply makes a plan, reads it, and applies it.
func (p *people) planApply(d draw) {
	r, ok := p.plan(d)
	if ok && p.operator(d, http.MethodPost, pathOf("api", "runs", r.ID, "apply"), map[string]any{"note": "as planned"}, nil) {
		p.w.reached.Hit("operator/plan-apply")
	}
}

// plan makes one and waits until it is ready to be applied.
func (p *people) plan(d draw) (aRun, bool) {
	var r aRun
	if !p.operator(d, http.MethodPost, "/api/runs", map[string]any{"kind": "plan"}, &r) {
		return r, false
	}
	return p.await(d, r.ID, "planned")
}

// await waits until a run is no longer under way.
func (p *people) await(d draw, id, want string) (aRun, bool) {
	for range 120 {
		if sleep(p.w.ctx, 10*time.Second) != nil {
			break
		}
		var r aRun
		if p.operator(d, http.MethodGet, pathOf("api", "runs", id), nil, &r) && r.State != "running" && r.State != "applying" {
			return r, r.State == want
		}
	}
	return aRun{}, false
}

func (p *people) cancelRun(d draw) {
	var list struct{ Items []aRun }
	if !p.operator(d, http.MethodGet, "/api/runs", nil, &list) || len(list.Items) == 0 {
		return
	}
	if p.operator(d, http.MethodPost, pathOf("api", "runs", list.Items[0].ID, "cancel"), map[string]any{"note": "not now"}, nil) {
		p.w.reached.Hit("operator/cancel-run")
	}
}

// braked says whether the fuse is latched or the account doubted.
func (p *people) braked(d draw) (latched, doubted bool) {
	var s struct {
		Fuse    struct{ Latched bool }
		Account *struct{ Doubt string }
	}
	if !p.operator(d, http.MethodGet, "/api/status", nil, &s) {
		return false, false
	}
	return s.Fuse.Latched, s.Account != nil
}

// releaseFuse is what somebody does who finds the fuse latched: plan, read the number,
// and name it; the wrong one first, now and then.
func (p *people) releaseFuse(d draw) {
	latched, doubted := p.braked(d)
	if !latched && !doubted {
		return
	}
	p.release(d, d.chance(0.5))
}

// release vouches for the account and for the number of deletions, as they are shown.
func (p *people) release(d draw, wrong bool) {
	r, ok := p.plan(d)
	if r.State == "failed" { // it has judged nothing: somebody has to say whose account it is
		if r, ok = p.apply(d, r.ID, map[string]any{"acceptAccount": true, "note": "it is ours"}); !ok && r.Fuse == "" {
			return
		}
	} else if !ok {
		return
	}
	if wrong {
		p.w.reached.Hit("fuse/released-wrong")
		ask := map[string]any{"expectDeletions": r.Candidates + 1 + int64(d.IntN(3)), "note": "surely"}
		if p.operator(d, http.MethodPost, pathOf("api", "runs", r.ID, "apply"), ask, nil) {
			p.w.record.wrong("fuse", "run %s with %d candidates was applied for %v", r.ID, r.Candidates, ask["expectDeletions"])
		}
	}
	ask := map[string]any{"expectDeletions": r.Candidates, "acceptAccount": true, "note": fmt.Sprintf("%d it is", r.Candidates)}
	if _, ok := p.apply(d, r.ID, ask); ok {
		p.w.reached.Hit("fuse/released-right")
	}
}

// apply has a run carried out and waits for its end.
func (p *people) apply(d draw, id string, ask map[string]any) (aRun, bool) {
	if !p.operator(d, http.MethodPost, pathOf("api", "runs", id, "apply"), ask, nil) {
		return aRun{}, false
	}
	return p.await(d, id, "complete")
}
