package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// liveness is how long a healed installation may take to come to rest. It is generous:
// only one that is stuck meets it.
const liveness = 2 * time.Minute

// round is one schedule under way on an installation.
type round struct {
	r     *rig
	s     schedule
	began time.Time

	mu    sync.Mutex
	files []*liveFile
	told  []string // what happened, for the story
}

// liveFile is a file of the schedule as far as it has come.
type liveFile struct {
	drawnFile
	index  int
	fields map[string]string // of its upload

	mu   sync.Mutex // one change at a time
	id   string     // empty before it is uploaded
	path string
	gone bool
}

// run plays the schedule: what is there before, faults and traffic together, healing,
// rest. Its error is a broken promise or a rig that failed.
func (r *rig) run(s schedule) error {
	run := &round{r: r, s: s}
	if err := run.prepare(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	run.play()
	r.hooks.behave(mood{})
	err := run.rest()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, run.log())
	}
	return nil
}

// rest heals everything and waits until it has come to rest, within one bound for all.
// What may never be wrong is judged as soon as nothing is under way any more; what has to
// become right may take until the bound, for a run of reconciliation to mend what people
// did.
func (run *round) rest() error {
	if err := run.r.Heal(liveness); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), liveness)
	defer cancel()
	if err := until(ctx, func() error { return run.r.Quiet(ctx) }); err != nil {
		return run.r.stuck(liveness, err)
	}
	if err := run.judge(ctx, check.Safety); err != nil {
		return err
	}
	return errors.Join(until(ctx, func() error {
		if err := errors.Join(run.r.Differs(ctx), run.r.Quiet(ctx)); err != nil {
			return err
		}
		return run.judge(ctx, check.Settled)
	}), run.r.Fell())
}

// judge holds everything since the installation's start against the invariants.
func (run *round) judge(ctx context.Context, phase check.Phase) error {
	v, err := run.r.Judge(ctx, phase)
	if err != nil {
		return err
	}
	err = broken(v)
	if phase == check.Settled && err == nil && run.s.prompt() {
		obeyed := run.r.obeyed(run.began, 300*time.Millisecond)
		run.r.hitN("checked/resets", obeyed.Counts["I13.resets"])
		err = broken(obeyed)
	}
	return err
}

// prepare uploads what is there before and asks for the upload tokens of what comes.
func (run *round) prepare() error {
	ctx, cancel := context.WithTimeout(context.Background(), liveness)
	defer cancel()
	run.began = time.Now()
	for i, f := range run.s.Files {
		lf := &liveFile{drawnFile: f, index: i}
		run.files = append(run.files, lf)
		if f.Ticket == "" {
			lf.fields = map[string]string{"fileName": f.Name, "useUniqueFileName": "false"}
		} else {
			tokens, err := run.r.UploadTokens(ctx, f.Ticket, []string{f.Name})
			if err != nil {
				return err
			}
			lf.fields = tokens[0]
		}
		if f.Before {
			if err := run.upload(ctx, lf, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// play runs faults and acts, each at its moment, and returns when all are over.
func (run *round) play() {
	ctx, cancel := context.WithTimeout(context.Background(), run.s.Lasts+2*senderPatience)
	defer cancel()
	run.began = time.Now()
	bad := run.s.Mood
	if bad.By > 0 {
		rolls := &lockedDice{dice: rand.New(rand.NewPCG(run.s.Seed, 0x6d6f6f64))}
		bad.Roll = rolls.roll
	}
	run.r.hooks.behave(bad)
	var all sync.WaitGroup
	for _, f := range run.s.Faults {
		all.Go(func() { run.strike(f) })
	}
	for _, a := range run.s.Acts {
		all.Go(func() {
			run.at(a.At)
			if err := run.act(ctx, a); err != nil {
				run.tell("%s: %v", a, err)
			}
		})
	}
	all.Wait()
}

type lockedDice struct {
	mu   sync.Mutex
	dice *rand.Rand
}

func (l *lockedDice) roll() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dice.Float64()
}

// at waits for a moment of the schedule.
func (run *round) at(moment time.Duration) { <-time.After(time.Until(run.began.Add(moment))) }

func (run *round) tell(format string, args ...any) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.told = append(run.told, fmt.Sprintf("%7s ", time.Since(run.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (run *round) log() string {
	run.mu.Lock()
	defer run.mu.Unlock()
	var out string
	for _, line := range run.told {
		out += line + "\n"
	}
	return out
}

var errNotThere = errors.New("the file is not there")

// act does one thing. Its error is for the story: under faults anything may fail.
func (run *round) act(ctx context.Context, a act) error {
	f := run.files[a.File]
	switch a.What {
	case "upload":
		return run.upload(ctx, f, a.N)
	case "overwrite", "move", "edit", "delete":
		return run.change(ctx, f, a)
	}
	f.mu.Lock()
	id := f.id
	f.mu.Unlock()
	if a.What == "unknown" {
		id = fmt.Sprintf("%024x", uint64(a.N)<<20|run.s.Seed)
	}
	if id == "" {
		return errNotThere
	}
	switch a.What {
	case "report", "unknown", "reports", "webhook", "replay", "forged":
		return run.send(ctx, a, id)
	}
	return run.byHand(ctx, a, id)
}

func (run *round) upload(ctx context.Context, f *liveFile, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, err := run.r.Upload(ctx, f.fields, n)
	if err != nil {
		return err
	}
	f.id, f.path = id, "/"+f.Name
	run.r.hit("library/uploaded")
	run.tell("file %d is %s", f.index, id)
	return nil
}

func (run *round) change(ctx context.Context, f *liveFile, a act) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id == "" || f.gone {
		return errNotThere
	}
	switch a.What {
	case "overwrite":
		folder := f.path[:len(f.path)-len(f.Name)]
		err = run.r.Overwrite(ctx, f.Name, folder, a.N)
	case "move":
		folder := fmt.Sprintf("/m%d-%d/", run.s.Seed, a.N)
		if err = run.r.Move(ctx, f.path, folder); err == nil {
			f.path = folder + f.Name
		}
	case "edit":
		err = run.r.Edit(ctx, f.id, []string{fmt.Sprintf("tag-%d", a.N), "edited"})
	case "delete":
		if err = run.r.Delete(ctx, f.id); err == nil {
			f.gone = true
		}
	}
	if err == nil {
		run.r.hit("library/" + map[string]string{"overwrite": "overwritten", "move": "moved", "edit": "edited", "delete": "deleted"}[a.What])
	}
	return err
}

// send is a report or a webhook, keen ones until they are accepted or time is up.
func (run *round) send(ctx context.Context, a act, id string) error {
	for try := 0; ; try++ {
		status := run.once(ctx, a, id, try)
		switch {
		case status == 0:
			run.r.hit("client/unanswered")
		case status == http.StatusServiceUnavailable:
			run.r.hit("client/refused")
		case status/100 == 2:
			return nil
		case a.What != "forged":
			return fmt.Errorf("answered %d", status)
		}
		if !a.Keen || a.What == "forged" {
			return fmt.Errorf("answered %d", status)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var untrueKinds = []string{"file.updated", "file.created", "file-version.created", "file.updated"}

func (run *round) once(ctx context.Context, a act, id string, try int) int {
	way := a.File + a.N + try
	switch a.What {
	case "webhook":
		run.r.hit("webhook/untrue")
		hook := fmt.Sprintf("untrue-%d-%d-%d", run.s.Seed, a.File, a.At)
		return run.r.RawWebhook(ctx, way, hook, untrueKinds[a.N%len(untrueKinds)], id).Status
	case "replay":
		run.r.hit("webhook/replayed")
		hook := fmt.Sprintf("replay-%d-%d", run.s.Seed, a.N)
		first := run.r.RawWebhook(ctx, way, hook, "file.updated", id).Status
		run.r.RawWebhook(ctx, way+1, hook, "file.updated", id)
		return first
	case "forged":
		run.r.hit("webhook/forged")
		stranger := fmt.Sprintf("f%023x", uint64(a.At)<<20|run.s.Seed)
		return run.r.ForgedWebhook(ctx, way, "forged-"+stranger, "file.deleted", stranger).Status
	case "reports":
		run.r.hit("client/array")
		return run.r.Reports(ctx, way, a.User, run.ids())[0].Status
	case "unknown":
		run.r.hit("client/unknown")
	default:
		run.r.hit(map[bool]string{true: "client/duplicate", false: "client/report"}[a.N == 1])
		if a.User == "mallory" {
			run.r.hit("client/foreign")
		}
	}
	return run.r.Report(ctx, way, a.User, id).Status
}

// ids are the files that are there now.
func (run *round) ids() (all []string) {
	for _, f := range run.files {
		f.mu.Lock()
		if f.id != "" {
			all = append(all, f.id)
		}
		f.mu.Unlock()
	}
	return all
}

// byHand is what a person, or another application, does to the table. It is noted
// whether or not it could be confirmed: it may have happened.
func (run *round) byHand(ctx context.Context, a act, id string) error {
	h := check.Hand{At: time.Now(), FileID: id}
	var sql string
	args := []any{id}
	switch a.What {
	case "sql-update":
		h.Kind, sql = check.HandUpdate, `UPDATE public.imagekit_files SET file_name = 'by hand', size_bytes = 1, tags = '{by,hand}' WHERE file_id = $1`
	case "sql-owner":
		h.Kind, h.User, sql = check.HandUpdate, a.User, `UPDATE public.imagekit_files SET user_id = $2 WHERE file_id = $1`
		args = append(args, a.User)
	case "sql-delete":
		h.Kind, sql = check.HandDelete, `DELETE FROM public.imagekit_files WHERE file_id = $1`
	case "sql-bogus":
		h.FileID = fmt.Sprintf("b%023x", uint64(a.N)<<20|run.s.Seed)
		h.Kind, sql = check.HandInsert, `INSERT INTO public.imagekit_files (file_id, file_url, user_id, upload_timestamp) VALUES ($1, 'https://by-hand.example/x', '', now()) ON CONFLICT DO NOTHING`
		args = []any{h.FileID}
	case "sql-adopt":
		h.Kind, h.User, sql = check.HandInsert, a.User, `INSERT INTO public.imagekit_files (file_id, file_url, user_id, upload_timestamp) VALUES ($1, 'https://by-hand.example/x', $2, now()) ON CONFLICT DO NOTHING`
		args = append(args, a.User)
	default:
		return fmt.Errorf("unknown act %q", a.What)
	}
	run.r.noteHand(h)
	ctx, cancel := context.WithTimeout(ctx, senderPatience)
	defer cancel()
	tag, err := run.r.db.Exec(ctx, sql, args...)
	if err != nil {
		return err
	}
	if tag.RowsAffected() > 0 {
		run.r.hit("sql/" + a.What[len("sql-"):])
	}
	return nil
}

func (r *rig) noteHand(h check.Hand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hands = append(r.hands, h)
}
