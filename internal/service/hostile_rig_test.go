package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
	"github.com/trueup/trueup/worker"
	"github.com/trueup/trueup/worker/reconcile"
	"github.com/trueup/trueup/worker/verify"
)

// hostileRig is a worker with its reconciler in this process, on a real database and the
// real embedded queue, and ImageKit played by a shelf. It is joined here and not by
// service.New because it needs patience in milliseconds: every wait is about a thousandth
// of the real one, in the same order of sizes. In particular a canary is younger than
// ABSENT_CONFIRM is long.
type hostileRig struct {
	t      testing.TB
	shelf  *shelf
	db     *pgxpool.Pool // a person with SQL
	rows   *store.Store
	queue  *queue.Queue
	dir    string
	now    func() time.Time // trueup's own clock
	key    string           // a fingerprint of the private key
	recon  *reconcile.Reconciler
	worker *worker.Worker
	stop   func()
	before map[string]string // rows when the last run began: user by file
}

const (
	hostileConfirm = 30 * time.Millisecond // ABSENT_CONFIRM
	hostileCanary  = 20 * time.Millisecond
)

// newHostileRig starts with a library of n files and rows that agree with it, owned by
// three people and, each seventh, by nobody.
func newHostileRig(t testing.TB, n int) *hostileRig {
	t.Helper()
	url := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	r := &hostileRig{t: t, shelf: newShelf(), dir: testenv.Dir(t), now: time.Now, key: "k1"}
	r.connect(url)
	for i := range n {
		r.shelf.put(made(i))
	}
	r.start()
	if n > 0 {
		if first := r.run(); first.State != run.Complete {
			t.Fatalf("the first run: %+v", first)
		}
	}
	r.exec(`UPDATE trueup.file_state SET owner = 'user_' || ascii(substr(file_id, 4, 1)) % 3, owner_kind = 'claimed' WHERE ascii(substr(file_id, 4, 1)) % 7 <> 0`)
	r.exec(`UPDATE public.imagekit_files f SET user_id = s.owner FROM trueup.file_state s WHERE s.file_id = f.file_id`)
	r.exec(`CREATE TABLE public.removed (file_id text)`)
	r.exec(`CREATE FUNCTION public.note_removed() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF session_user <> 'person' AND current_setting('hostile.person', true) IS DISTINCT FROM 'yes' THEN INSERT INTO public.removed VALUES (old.file_id); END IF; RETURN NULL; END $$`)
	r.exec(`CREATE TRIGGER removed AFTER DELETE ON public.imagekit_files FOR EACH ROW EXECUTE FUNCTION public.note_removed()`)
	r.remember()
	return r
}

func (r *hostileRig) connect(url string) {
	r.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		r.t.Fatal(err)
	}
	// Nothing here is about power cuts.
	if _, err := conn.Exec(ctx, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$`); err != nil {
		r.t.Fatal(err)
	}
	_ = conn.Close(ctx)
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		r.t.Fatal(err)
	}
	c.ConnConfig.RuntimeParams["hostile.person"] = "yes"
	if r.db, err = pgxpool.NewWithConfig(ctx, c); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.db.Close)
	if r.rows, err = store.Open(ctx, store.Config{URL: url, AbsentConfirm: hostileConfirm}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.rows.Close)
	if r.queue, err = queue.Open(ctx, queue.Config{Dir: filepath.Join(r.dir, "queue")}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = r.queue.Close() })
}

// hostileSource asks ImageKit's client, and once more after a transient fault.
type hostileSource struct{ client *imagekit.Client }

func (s hostileSource) twice(ask func() (file.Answer, error)) (file.Answer, error) {
	a, err := ask()
	var fault *file.Fault
	if errors.As(err, &fault) && fault.Transient() {
		return ask()
	}
	return a, err
}

func (s hostileSource) ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return s.twice(func() (file.Answer, error) { return s.client.ListCreated(ctx, from, skip) })
}

func (s hostileSource) ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return s.twice(func() (file.Answer, error) { return s.client.ListUpdated(ctx, from, skip) })
}

func (s hostileSource) Newest(ctx context.Context) (file.Answer, error) {
	return s.twice(func() (file.Answer, error) { return s.client.Newest(ctx) })
}

func (s hostileSource) Details(ctx context.Context, id string) (file.Answer, error) {
	return s.twice(func() (file.Answer, error) { return s.client.Details(ctx, id) })
}

// start starts a worker with its reconciler, as a new process would.
func (r *hostileRig) start() {
	r.t.Helper()
	client, err := imagekit.New(imagekit.Config{BaseURL: "https://imagekit.invalid", PrivateKey: "private_hostile", Transport: r.shelf, Timeout: 2 * time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	verifier, err := verify.New(verify.Config{
		Library: client, Fences: r.rows, LiveFiles: r.rows.LiveFiles, Tries: 2, Patience: 50 * time.Millisecond, ProbePatience: 50 * time.Millisecond,
		CanaryFor: hostileCanary, Budget: verify.BudgetConfig{StartRate: 1e6, MaxRate: 1e6},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.recon, err = reconcile.New(reconcile.Config{
		Library: shelfLibrary{hostileSource{client}}, Runs: r.rows, Rows: r.rows, Brakes: r.rows, Queue: r.queue,
		Dir: filepath.Join(r.dir, "reconcile"), Account: run.Account{Key: r.key, Endpoint: "hostile"}, Now: r.now,
		SettleFor: 600 * time.Millisecond, GiveUp: 30 * time.Millisecond, Look: 2 * time.Millisecond, Backoff: time.Millisecond,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var w *worker.Worker // of this start: another may follow
	w, err = worker.New(worker.Config{
		Queue: r.queue, Turns: r.queue, Look: verifier, Rows: r.rows, Now: r.now, Logger: slog.New(slog.DiscardHandler),
		Table: worker.Table{NotFoundGrace: 20 * time.Millisecond, RetryMaxAge: 150 * time.Millisecond, Version: "test"},
		Begun: func(ctx context.Context) {
			if err := r.recon.Run(ctx, w.State().Turn); err != nil && !errors.Is(err, event.ErrTurnMoved) && ctx.Err() == nil {
				r.t.Errorf("reconciler: %v", err)
			}
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.worker = w
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("worker: %v", err)
		}
		client.Close()
		r.stop = func() {}
	}
	r.t.Cleanup(func() { r.stop() })
}

// run is one reconciliation run to its end.
func (r *hostileRig) run() run.Run {
	r.t.Helper()
	return r.await(r.begin(run.Full).ID)
}

func (r *hostileRig) begin(kind run.Kind) run.Run {
	r.t.Helper()
	begun, err := r.rows.StartRun(context.Background(), run.Run{Kind: kind, Phase: run.PhaseAccount, StartedBy: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.recon.Wake()
	return begun
}

func (r *hostileRig) await(id string) (now run.Run) {
	r.t.Helper()
	testenv.Eventually(r.t, 2*time.Minute, func() (err error) {
		if now, err = r.rows.Run(context.Background(), id); err == nil && now.State.Open() {
			err = fmt.Errorf("still %s in %s: %s", now.State, now.Phase, now.Waiting)
		}
		return err
	})
	return now
}

// apply gives an operator's order for a run.
func (r *hostileRig) apply(id string, a run.Apply) run.Run {
	r.t.Helper()
	a.Who, a.Note = "oncall", "test"
	if _, err := r.rows.ApplyRun(context.Background(), id, a); err != nil {
		r.t.Fatalf("apply %s: %v", id, err)
	}
	r.recon.Wake()
	return r.await(id)
}

func (r *hostileRig) exec(sql string, args ...any) {
	r.t.Helper()
	if _, err := r.db.Exec(context.Background(), sql, args...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *hostileRig) query(sql string, args ...any) (out []string) {
	r.t.Helper()
	rows, err := r.db.Query(context.Background(), sql, args...)
	if err == nil {
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// table is imagekit_files as the oracle of the other tests reads it.
func (r *hostileRig) table() map[string]row {
	r.t.Helper()
	return (&installation{t: r.t, db: r.db}).rows()
}

// remember notes whose the rows are.
func (r *hostileRig) remember() {
	r.t.Helper()
	r.before = map[string]string{}
	for id, row := range r.table() {
		r.before[id] = row.User
	}
}

// removed are the rows that trueup, and not a person, has removed, for whatever time.
func (r *hostileRig) removed() []string {
	return r.query(`SELECT file_id FROM public.removed ORDER BY file_id`)
}

// fuse is why the fuse is latched; empty when it is not.
func (r *hostileRig) fuse() string {
	why := r.query(`SELECT why FROM trueup.fuse WHERE latched_at IS NOT NULL`)
	if len(why) == 0 {
		return ""
	}
	return why[0]
}

func (r *hostileRig) doubt() string { return r.query(`SELECT account_doubt FROM trueup.fuse`)[0] }

// safe fails if the row of a file that the shelf holds was removed.
func (r *hostileRig) safe() error {
	held := r.shelf.want()
	for _, id := range r.removed() {
		if _, ok := held[id]; ok {
			return fmt.Errorf("the row of %s was removed, and ImageKit holds the file", id)
		}
	}
	return nil
}

// differs says how the table differs from the shelf, and whose rows have changed hands;
// files are nobody's unless they were somebody's before.
func (r *hostileRig) differs() error {
	have := r.table()
	if err := differ(r.shelf.want(), have); err != nil {
		return err
	}
	for id, row := range have {
		if row.User != r.before[id] {
			return fmt.Errorf("%s is %q's, and was %q's", id, row.User, r.before[id])
		}
	}
	return nil
}

// recover lets an honest ImageKit answer again, and an operator do what the runs ask for,
// until the table equals the library.
func (r *hostileRig) recover() error {
	r.t.Helper()
	r.shelf.play()
	var last run.Run
	for range 3 {
		last = r.released(r.run())
		if r.fuse() != "" { // by what is over: a plan counts anew
			last = r.released(r.await(r.begin(run.Plan).ID))
		}
		if err := r.safe(); err != nil {
			return err
		}
		if last.State == run.Complete && r.differs() == nil {
			return nil
		}
	}
	return fmt.Errorf("after three honest runs, the last %s (%s; fuse %q): %w", last.State, last.Error, last.Fuse, r.differs())
}

// released is what an operator makes of a run who trusts ImageKit.
func (r *hostileRig) released(last run.Run) run.Run {
	r.t.Helper()
	if last.State == run.Failed && last.Account.Asked > 0 && !last.Account.Confirmed {
		last = r.apply(last.ID, run.Apply{AcceptAccount: true})
	}
	if r.fuse() != "" && (last.State == run.Partial || last.State == run.Planned) {
		last = r.apply(last.ID, run.Apply{ExpectDeletions: &last.Candidates})
	}
	return last
}

// keep sets aside what newHostileRig has made, for reset.
func (r *hostileRig) keep() {
	r.exec(`CREATE SCHEMA hostile`)
	r.exec(`CREATE TABLE hostile.files AS TABLE public.imagekit_files`)
	r.exec(`CREATE TABLE hostile.states AS TABLE trueup.file_state`)
	r.exec(`CREATE TABLE hostile.runs AS TABLE trueup.runs`)
}

// reset begins anew with n files and rows that agree: those of ids, each in its first
// version. It takes back by SQL what an operator or a day's end would: the fuse, its
// day's count, the doubt in the account; with last there was a complete run before.
func (r *hostileRig) reset(page int, last bool, ids ...string) {
	r.t.Helper()
	r.stop()
	r.exec(`DELETE FROM public.imagekit_files`)
	r.exec(`DELETE FROM trueup.findings; DELETE FROM trueup.runs; DELETE FROM trueup.retries; DELETE FROM trueup.dead_letters; DELETE FROM trueup.trial_marks;
		DELETE FROM trueup.ledger; DELETE FROM trueup.fuse_hours; DELETE FROM public.removed; DELETE FROM trueup.file_state;
		UPDATE trueup.fuse SET latched_at = NULL, why = '', run_id = NULL, account = '{}', account_doubt = '', account_doubted_at = NULL, account_run = NULL`)
	r.exec(`INSERT INTO trueup.file_state SELECT * FROM hostile.states WHERE file_id = ANY($1)`, ids)
	r.exec(`INSERT INTO public.imagekit_files SELECT * FROM hostile.files WHERE file_id = ANY($1)`, ids)
	if last {
		r.exec(`INSERT INTO trueup.runs SELECT * FROM hostile.runs`)
		r.exec(`UPDATE trueup.runs SET remote_rows = $1`, len(ids))
	}
	r.shelf.play()
	r.shelf.mu.Lock()
	r.shelf.page = page
	clear(r.shelf.books)
	for i := range hostileFiles {
		if b := made(i); slices.Contains(ids, b.id) {
			r.shelf.add(b)
		}
	}
	r.shelf.mu.Unlock()
	r.remember()
	r.start()
}

// hostileFiles is how many files the model knows before anything happens.
const hostileFiles = 60

// firstOnes are the ids of the first n files.
func firstOnes(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = made(i).id
	}
	return ids
}
