package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// PollConfig is what a Poller needs. The first five are required.
type PollConfig struct {
	Library   Library
	Rows      Rows
	Brakes    Brakes
	Positions Positions
	Queue     Publisher
	// Prove opens the tickets inside a snapshot; nil: nothing is proven.
	Prove func(*file.Snapshot) file.Proof
	// Every is how often to ask; zero means never.
	Every time.Duration
	// Overlap is how far behind what it shows ImageKit's index may be; zero means 2 min.
	Overlap time.Duration
	// Slice is how many hits are written at once; zero means 500.
	Slice int
	// Pages bounds the list calls of one poll; zero means 200. What is left is the next
	// one's.
	Pages int
	// Keep is how many fed hits are remembered; zero means 20,000. Where more changed
	// within the overlap, that is cut short instead, and what comes late is left to the
	// next run.
	Keep    int
	Now     func() time.Time
	Metrics *PollMetrics
	Logger  *slog.Logger // nil: nobody hears
}

// Poller asks every now and then which files were updated last and feeds those hits to
// the write path, so that a change becomes a row without any webhook. It removes
// nothing, and while ImageKit shows nothing new it asks the database nothing.
type Poller struct{ PollConfig }

// NewPoller returns a Poller that does nothing until Run.
func NewPoller(c PollConfig) (*Poller, error) {
	if c.Library == nil || c.Rows == nil || c.Brakes == nil || c.Positions == nil || c.Queue == nil {
		return nil, errors.New("reconcile: a Poller needs Library, Rows, Brakes, Positions and Queue")
	}
	c.Overlap = cmp.Or(c.Overlap, 2*time.Minute)
	c.Slice = cmp.Or(c.Slice, 500)
	c.Pages = cmp.Or(c.Pages, 200)
	c.Keep = cmp.Or(c.Keep, 20_000)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Prove == nil {
		c.Prove = func(*file.Snapshot) file.Proof { return file.Proof{} }
	}
	return &Poller{c}, nil
}

// Run polls as long as the turn lasts: until ctx is done or another turn has begun. It
// returns nil then. A poll that fails is not repeated: the next one sees as much.
func (p *Poller) Run(ctx context.Context, turn int64) error {
	if p.Every <= 0 {
		<-ctx.Done()
		return nil
	}
	t := &polling{Poller: p, turn: turn, seen: memory{}}
	ticker := time.NewTicker(p.Every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		err := t.poll(ctx)
		if errors.Is(err, event.ErrTurnMoved) {
			return nil
		}
		if ctx.Err() == nil {
			t.say(ctx, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// errDoubted means that hits were seen and not fed, because nothing shows that they are
// of our account.
var errDoubted = errors.New("the account is not confirmed")

// polling is one turn's polling. Nothing in it outlives the turn but what is in the
// rows: a database that was put back meanwhile gets everything again.
type polling struct {
	*Poller
	turn int64

	placed   bool
	position time.Time // the highest updatedAt that was fed, as far as ImageKit's clock goes
	saved    time.Time
	floor    time.Time // what was updated before it counts as fed
	seen     memory
	heard    time.Time // ImageKit's clock, by its last answer
	largest  int       // rows of the largest page

	recognised bool // the account, in this turn
	said       string
	news       int // hits fed by the poll under way
}

func (t *polling) poll(ctx context.Context) error {
	t.news = 0
	if !t.placed {
		return t.place(ctx)
	}
	return t.follow(ctx)
}

// place finds where an earlier turn stopped. Who polls for the first time begins with
// the newest file: all before it is a run's to compare.
func (t *polling) place(ctx context.Context) error {
	at, err := t.Positions.PollPosition(ctx)
	if err != nil {
		return err
	}
	if at.IsZero() {
		return t.begin(ctx)
	}
	t.position, t.saved, t.placed = at, at, true
	return t.follow(ctx)
}

func (t *polling) begin(ctx context.Context) error {
	answer, err := t.Library.Newest(ctx)
	if err != nil {
		return fmt.Errorf("ask for the newest file: %w", err)
	}
	at := t.clock(answer)
	if len(answer.Snapshots) > 0 {
		at = earlier(at, answer.Snapshots[0].UpdatedAt)
	}
	if err := t.save(ctx, at); err != nil {
		return err
	}
	t.position, t.placed = at, true
	return nil
}

func (t *polling) save(ctx context.Context, at time.Time) error {
	if err := t.Positions.SavePollPosition(ctx, t.turn, at); err != nil {
		return err
	}
	t.saved = at
	t.Metrics.at(at)
	return nil
}

// clock is ImageKit's own where it says so.
func (t *polling) clock(a file.Answer) time.Time {
	if a.Date.IsZero() {
		return t.Now()
	}
	return a.Date
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// follow pages from the position, less the overlap, until a page shows nothing new and
// is not a full one.
func (t *polling) follow(ctx context.Context) error {
	since := t.since()
	w := window{from: since.Truncate(time.Second)}
	var reached time.Time
	for range t.Pages {
		answer, err := t.Library.ListUpdated(ctx, w.from, w.skip)
		if err != nil {
			return fmt.Errorf("list what was updated: %w", err)
		}
		if t.heard = t.clock(answer); t.lost() {
			return t.turnBack(ctx)
		}
		news := t.seen.news(answer.Snapshots, since)
		if err := t.feed(ctx, answer, news); err != nil {
			return err
		}
		ordered, last := inOrder(answer.Snapshots)
		if reached = later(reached, earlier(last, t.heard)); ordered {
			if err := t.commit(ctx, reached); err != nil {
				return err
			}
		}
		t.largest = max(t.largest, answer.Rows)
		if !w.next(answer, len(news), t.largest) {
			break
		}
	}
	if err := t.commit(ctx, reached); err != nil {
		return err
	}
	// What is said to be of the future must not raise the floor above all that comes.
	t.floor = earlier(t.seen.forget(t.since(), t.Keep), t.heard.Add(time.Second))
	return nil
}

// since is where a poll begins.
func (t *polling) since() time.Time { return later(t.position.Add(-t.Overlap), t.floor) }

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// lost reports a position that ImageKit's clock has not reached yet: a library, or a
// database, that was put back. Behind it nothing would ever be new.
func (t *polling) lost() bool { return t.position.After(t.heard.Add(t.Overlap)) }

func (t *polling) turnBack(ctx context.Context) error {
	t.Logger.WarnContext(ctx, "poll.position_ahead", "position", t.position, "imagekit", t.heard)
	if err := t.save(ctx, t.heard); err != nil {
		return err
	}
	t.position, t.floor, t.seen = t.heard, time.Time{}, memory{}
	return nil
}

// commit moves the position on, and stores it when this poll has brought news.
func (t *polling) commit(ctx context.Context, to time.Time) error {
	t.position = later(t.position, to)
	if t.news == 0 || !t.position.After(t.saved) {
		return nil
	}
	return t.save(ctx, t.position)
}

// feed writes what hits may write, and has the others looked up by id. What is written
// is remembered slice by slice.
func (t *polling) feed(ctx context.Context, answer file.Answer, news []*file.Snapshot) error {
	if len(news) == 0 {
		return nil
	}
	if err := t.recognise(ctx); err != nil {
		return err
	}
	for slice := range slices.Chunk(news, t.Slice) {
		hits := make([]file.Observation, len(slice))
		for i, s := range slice {
			hits[i] = file.Observation{FileID: s.ID, How: file.Hit, Snapshot: s, Proof: t.Prove(s), Status: answer.Status, RequestID: answer.RequestID}
		}
		ask, err := t.repair(ctx, hits)
		if err != nil {
			return err
		}
		if err := recheck(ctx, t.Queue, t.Now(), ask); err != nil {
			return err
		}
		t.seen.remember(slice)
		t.news += len(slice)
	}
	return nil
}

// recognise makes sure that the key still shows our library, before the first hit of a
// turn and as long as anybody doubts it.
func (t *polling) recognise(ctx context.Context) error {
	_, doubt, err := t.Brakes.Account(ctx)
	if err != nil {
		return err
	}
	if t.recognised && doubt == "" {
		return nil
	}
	known, err := t.Rows.KnownFiles(ctx, askKnown)
	if err != nil {
		return err
	}
	fence, _, err := t.Rows.Fence(ctx, nil)
	if err != nil {
		return err
	}
	r, err := recognise(ctx, t.Library, known)
	if err != nil {
		return err
	}
	if r.Shown != nil {
		if err := clearSuspect(ctx, t.Rows, t.Queue, t.turn, t.Now(), r.shownByID(fence, t.Prove)); err != nil {
			return err
		}
	}
	if t.recognised = r.Why == ""; !t.recognised {
		return fmt.Errorf("%w: %s", errDoubted, r.Why)
	}
	return nil
}

// repair feeds hits and returns those to look up by id.
func (t *polling) repair(ctx context.Context, hits []file.Observation) (ask []string, err error) {
	did, err := t.Rows.Repair(ctx, t.turn, "", 0, hits)
	if err != nil {
		return nil, err
	}
	for _, h := range hits {
		t.Metrics.hit(did[h.FileID])
		if did[h.FileID] == run.RepairAsk {
			ask = append(ask, h.FileID)
		}
	}
	return ask, nil
}

// say tells how a poll went: what changes at once, what goes on only on demand.
func (t *polling) say(ctx context.Context, err error) {
	state, level := "", slog.LevelDebug
	switch {
	case errors.Is(err, errDoubted):
		state = "doubted"
	case errors.Is(err, event.ErrPaused):
		state = "paused"
	case err != nil:
		state = "failed"
	}
	t.Metrics.polled(state, t.news)
	if state != t.said {
		level = slog.LevelWarn
	}
	t.said = state
	switch {
	case err != nil:
		t.Logger.Log(ctx, level, "poll."+state, "error", err.Error())
	case level == slog.LevelWarn:
		t.Logger.InfoContext(ctx, "poll.goes_on", "position", t.position)
	}
	if t.news > 0 {
		t.Logger.DebugContext(ctx, "poll.fed", "hits", t.news, "position", t.position)
	}
}
