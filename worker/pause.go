package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/event"
)

// Pause says why the worker is not settling; the zero value means that it is.
type Pause struct {
	// Why is "operator", "database" or "imagekit"; empty while working.
	Why   string    `json:"why,omitempty"`
	Note  string    `json:"note,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// gate stops all batches while the database or ImageKit as a whole is away, or an
// operator has paused the worker. While it is shut nothing is parked and no
// attempt is counted; ingest goes on accepting.
type gate struct {
	log    *slog.Logger
	now    func() time.Time
	random chance.Source

	mu       sync.Mutex
	operator *Pause
	outage   *Pause
	opened   chan struct{} // closed when the gate opens; nil while it is open
	// vain counts the outages since anything went well: a probe that succeeds while the
	// work goes on failing (a schema that is missing, a full disk) must not make us try
	// without a pause.
	vain int
}

// pass waits until the gate is open.
func (g *gate) pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		if opened == nil {
			return context.Cause(ctx)
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// state says why the gate is shut. An operator's pause is named first: it does not
// end by itself.
func (g *gate) state() Pause {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.operator != nil:
		return *g.operator
	case g.outage != nil:
		return *g.outage
	}
	return Pause{}
}

// settle opens or shuts according to the two reasons. The caller holds mu.
func (g *gate) settle() {
	shut := g.operator != nil || g.outage != nil
	switch {
	case shut && g.opened == nil:
		g.opened = make(chan struct{})
	case !shut && g.opened != nil:
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) setOperator(paused bool, note string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case paused && g.operator == nil:
		g.operator = &Pause{Why: "operator", Note: note, Since: g.now()}
		g.log.Info("worker.paused", "why", "operator", "note", note)
	case !paused && g.operator != nil:
		g.operator = nil
		g.log.Info("worker.resumed", "why", "operator")
	}
	g.settle()
}

// untilResumed ends an operator's pause whose end was told to others: a notice may be
// lost, the lease is what counts. That a pause began, each settling transaction finds
// out. While nobody has paused the worker this asks nothing, so that an idle database
// is left alone.
func (t *turn) untilResumed(ctx context.Context) error {
	ticker := time.NewTicker(t.PauseEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		if t.gate.state().Why != "operator" {
			continue
		}
		now, err := t.Rows.Turn(ctx)
		switch {
		case err != nil:
			t.Logger.DebugContext(ctx, "worker.pause_unknown", "error", err.Error())
		case now.Number != t.number:
			return event.ErrTurnMoved
		case !now.Paused:
			t.gate.setOperator(false, "")
		}
	}
}

// worked says that the work got through, not a probe alone.
func (g *gate) worked() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vain = 0
}

// recover shuts the gate until probe succeeds, asking at growing intervals. The
// first batch that meets an outage probes; the others wait at the gate. Outages that
// follow one another without any work done in between begin with a longer and longer
// pause.
func (g *gate) recover(ctx context.Context, why string, cause error, probe func(context.Context) error) error {
	g.mu.Lock()
	if g.outage != nil {
		g.mu.Unlock()
		return g.pass(ctx)
	}
	g.outage = &Pause{Why: why, Note: cause.Error(), Since: g.now()}
	g.settle()
	vain := g.vain
	g.vain++
	g.mu.Unlock()
	g.log.WarnContext(ctx, "worker.paused", "why", why, "cause", cause.Error())

	err := g.probing(ctx, vain, probe)

	g.mu.Lock()
	since := g.outage.Since
	g.outage = nil
	g.settle()
	g.mu.Unlock()
	if err == nil {
		g.log.InfoContext(ctx, "worker.resumed", "why", why, "after", g.now().Sub(since).Round(time.Millisecond).String())
	}
	return err
}

// probing returns when probe has succeeded. It first waits as long as it would have
// waited after vain probes that failed.
func (g *gate) probing(ctx context.Context, vain int, probe func(context.Context) error) error {
	backoff := retry.WithCappedDuration(15*time.Second, g.random.Spread(20, retry.NewExponential(250*time.Millisecond)))
	var wait time.Duration
	for range min(vain, 16) {
		wait, _ = backoff.Next()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return retry.Do(ctx, backoff, func(ctx context.Context) error {
		if err := probe(ctx); err != nil {
			return retry.RetryableError(err)
		}
		return nil
	})
}
