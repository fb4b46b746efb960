package verify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// probeTries is how many answers a probe waits for; one good one is enough. More
// than one, because a library of which every fifth answer fails is not away.
const probeTries = 3

// judge decides whose trouble a fault is: nil means the file's own, an error means
// that ImageKit as a whole is away. It is the file's own when another file answered
// after this one's last try was sent, or a probe does.
func (l *oneLook) judge(ctx context.Context, a Ask, fault *file.Fault, sent time.Time) error {
	l.mu.Lock()
	l.failing = append(l.failing, a.FileID)
	l.mu.Unlock()
	if l.v.recent.sawOtherSince(sent, a.FileID) {
		return nil
	}
	if err := l.probing.lock(ctx); err != nil {
		return err
	}
	defer l.probing.unlock()
	if l.vouched.After(sent) || l.v.recent.sawOtherSince(sent, a.FileID) {
		return nil
	}
	l.mu.Lock()
	failing := slices.Clone(l.failing)
	l.mu.Unlock()
	asked := time.Now()
	if err := l.v.probe(ctx, a.Priority, failing); err != nil {
		return fmt.Errorf("%w (first seen as %w)", err, fault)
	}
	l.vouched = asked
	return nil
}

// Healthy asks ImageKit about a file that is known to exist, or for any file; nil
// means that it answers. It is what a pause waits for.
func (v *Verifier) Healthy(ctx context.Context) error {
	return v.probe(ctx, Live, nil)
}

// probe finds out whether ImageKit answers at all: about files that answered last,
// else about live rows, else about any file. A 404 is an answer, too; whose library
// it comes from is for the canary to find out. failing are not asked again.
func (v *Verifier) probe(ctx context.Context, p Priority, failing []string) error {
	candidates, err := v.candidates(ctx, p, failing)
	for i := 0; err == nil && len(candidates) > 0 && i < probeTries; i++ {
		var fault *file.Fault
		_, fault, err = v.probeOne(ctx, p, candidates[i%len(candidates)])
		if err == nil && (fault == nil || fault.Absent()) {
			candidates = nil // it answers
		} else if err == nil && i == probeTries-1 {
			err = fmt.Errorf("%w: %w", ErrLibraryOutage, fault)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.Metrics.probed(err == nil)
	return err
}

func (v *Verifier) probeOne(ctx context.Context, p Priority, id string) (file.Answer, *file.Fault, error) {
	var sent time.Time
	answer, fault, err := v.ask(ctx, p, "details", 1, v.ProbePatience, func(ctx context.Context) (file.Answer, error) {
		sent = time.Now()
		return v.Library.Details(ctx, id)
	})
	if err == nil && fault == nil {
		v.recent.saw(id, sent)
	}
	return answer, fault, err
}

// candidates names files to probe with. Where none is known it lists one: an error
// then is the outage itself, and no candidate means that the listing alone has to
// vouch.
func (v *Verifier) candidates(ctx context.Context, p Priority, failing []string) ([]string, error) {
	if ids := v.recent.within(0, probeTries, failing); len(ids) > 0 {
		return ids, nil
	}
	// With the database away the listing will do; that outage shows elsewhere.
	if ids, err := v.LiveFiles(ctx, probeTries, failing); err == nil && len(ids) > 0 {
		return ids, nil
	}
	answer, fault, err := v.ask(ctx, p, "list", probeTries, v.ProbePatience, v.Library.ListOne)
	switch {
	case err != nil:
		return nil, err
	case fault != nil:
		return nil, fmt.Errorf("%w: %w", ErrLibraryOutage, fault)
	}
	for _, s := range answer.Snapshots {
		if !slices.Contains(failing, s.ID) {
			return []string{s.ID}, nil
		}
	}
	return nil, nil
}
