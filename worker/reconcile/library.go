package reconcile

import (
	"context"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// A run is in no hurry, and a page of 1,000 files may be long in coming; but an hour's
// listing should not end over a minute's trouble.
const (
	libraryTries    = 5
	libraryPatience = time.Minute
)

// Source is ImageKit's listing, before any budget. Errors are *file.Fault.
type Source interface {
	ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
	ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
	Newest(ctx context.Context) (file.Answer, error)
	Details(ctx context.Context, id string) (file.Answer, error)
}

// budgeted is a Library whose calls leave in the verifier's budget, behind all others
// but never less than every tenth.
type budgeted struct {
	source   Source
	verifier *verify.Verifier
}

// NewLibrary asks source within v's budget.
func NewLibrary(source Source, v *verify.Verifier) Library {
	return &budgeted{source: source, verifier: v}
}

func (b *budgeted) ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return b.ask(ctx, "list", func(ctx context.Context) (file.Answer, error) {
		return b.source.ListCreated(ctx, from, skip)
	})
}

func (b *budgeted) ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return b.ask(ctx, "list", func(ctx context.Context) (file.Answer, error) {
		return b.source.ListUpdated(ctx, from, skip)
	})
}

func (b *budgeted) Newest(ctx context.Context) (file.Answer, error) {
	return b.ask(ctx, "list", b.source.Newest)
}

func (b *budgeted) Details(ctx context.Context, id string) (file.Answer, error) {
	return b.ask(ctx, "details", func(ctx context.Context) (file.Answer, error) {
		return b.source.Details(ctx, id)
	})
}

func (b *budgeted) Healthy(ctx context.Context) error { return b.verifier.Healthy(ctx) }

func (b *budgeted) ask(ctx context.Context, endpoint string, call func(context.Context) (file.Answer, error)) (file.Answer, error) {
	return b.verifier.Ask(ctx, verify.Run, endpoint, libraryTries, libraryPatience, call)
}
