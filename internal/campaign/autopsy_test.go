package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/queue/envelope"
)

// stuck is the error of a wait for rest that did not come within a bound. What is known of
// why goes into the log of the test.
func (r *rig) stuck(within time.Duration, why error) error {
	r.t.Logf("stuck: %v\n%s", why, r.autopsy())
	return fmt.Errorf("stuck for %s: %w", within, why)
}

// autopsy says, of an installation that is stuck, what only it can tell: what each worker
// knows of itself, what stands in the stream and whether that is settled already, whose
// the turn is, and what every goroutine of the workers waits for. The workers are gone
// afterwards.
func (r *rig) autopsy() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var b strings.Builder
	for i := range r.ops {
		a, err := r.Ops(ctx, i, http.MethodGet, "/api/status", nil)
		fmt.Fprintf(&b, "--- worker%d: %d %s %v\n", i+1, a.status, a.body, err)
	}
	if err := r.autopsyOfQueue(ctx, &b); err != nil {
		fmt.Fprintf(&b, "--- the queue: %v\n", err)
	}
	for name, u := range r.units {
		if p, ok := u.(*program); ok && strings.HasPrefix(name, "worker") && p.pid() > 0 {
			_ = syscall.Kill(p.pid(), syscall.SIGQUIT)
			_ = until(ctx, func() error {
				if p.pid() > 0 {
					return errors.New("still there")
				}
				return nil
			})
			fmt.Fprintf(&b, "--- goroutines of %s:\n%s\n", name, lastOf(p.said(), 200_000))
		}
	}
	return b.String()
}

func (r *rig) autopsyOfQueue(ctx context.Context, b *strings.Builder) error {
	js, end, err := r.jetStream()
	if err != nil {
		return err
	}
	defer end()
	s, err := js.Stream(ctx, strings.ToUpper(streamPrefix)+"_EVENTS")
	if err != nil {
		return err
	}
	c, err := s.Consumer(ctx, "worker")
	if err != nil {
		return err
	}
	stored, worker := s.CachedInfo().State, c.CachedInfo()
	fmt.Fprintf(b, "--- stream: %s\n--- consumer: %s\n", encoded(stored), encoded(worker))
	if kv, err := js.KeyValue(ctx, streamPrefix+"_turn"); err == nil {
		entry, err := kv.Get(ctx, "turn")
		if err == nil {
			fmt.Fprintf(b, "--- turn: %s since %s\n", entry.Value(), entry.Created())
		} else {
			fmt.Fprintf(b, "--- turn: %v\n", err)
		}
	}
	seq, shown := stored.FirstSeq, 0
	for ; seq <= stored.LastSeq && shown < 50; shown++ {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(streamPrefix+".events"))
		if err != nil {
			break
		}
		seq = m.Sequence + 1
		env, err := envelope.Decode(m.Data)
		var ids []string
		for _, e := range env.Events {
			ids = append(ids, e.ID)
		}
		var over int
		_ = r.db.QueryRow(ctx, `SELECT count(*) FROM trueup.ledger WHERE id = ANY($1)`, ids).Scan(&over)
		fmt.Fprintf(b, "--- left: %d of %s, %d events, %d of them settled %v\n", m.Sequence, m.Time.Format(time.RFC3339Nano), len(ids), over, err)
	}
	return nil
}

func encoded(v any) string {
	out, _ := json.Marshal(v)
	return string(out)
}

// lives is what the database knows of the files that violations name.
func (r *rig) lives(violations []string) string {
	var b strings.Builder
	seen := map[string]bool{}
	for _, id := range fileIDs.FindAllString(strings.Join(violations, " "), -1) {
		if seen[id] || len(seen) == 20 {
			continue
		}
		seen[id] = true
		for _, table := range []string{"public.imagekit_files", "trueup.file_state", "trueup.ledger", "trueup.retries", "trueup.dead_letters"} {
			rows, err := r.db.Query(context.Background(), "SELECT to_jsonb(t) - 'body' - 'headers' FROM "+table+" t WHERE file_id = $1 ORDER BY 1", id)
			lines, err2 := pgx.CollectRows(rows, pgx.RowTo[string])
			fmt.Fprintf(&b, "--- %s of %s: %v\n%s\n", table, id, errors.Join(err, err2), strings.Join(lines, "\n"))
		}
	}
	return b.String()
}

// fileIDs are those of the emulator.
var fileIDs = regexp.MustCompile(`\b[0-9a-f]{24}\b`)
