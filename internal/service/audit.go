package service

import (
	"context"
	"errors"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/worker/reconcile"
	"github.com/trueup/trueup/worker/verify"
)

// Audited is what an audit found, and which columns it could compare.
type Audited struct {
	reconcile.AuditReport
	Compared []string `json:"compared"`
}

// Audit compares a table that trueup may never have seen with ImageKit's library. It
// needs no queue, no migration and nothing running, and writes to neither side.
func Audit(ctx context.Context, c *config.Config, version string, sample int, progress func(reconcile.AuditProgress)) (Audited, error) {
	rows, err := store.OpenAudit(ctx, c.Database.URL.Reveal())
	if err != nil {
		return Audited{}, err
	}
	defer rows.Close()
	source, err := openImageKit(c, version)
	if err != nil {
		return Audited{}, err
	}
	defer source.Close()
	asks, err := verify.New(verify.Config{Library: source, Fences: noFences{}, Budget: verify.BudgetConfig{MaxRate: c.ImageKit.RateMax}})
	if err != nil {
		return Audited{}, err
	}
	out := Audited{Compared: rows.Columns}
	out.AuditReport, err = reconcile.Audit(ctx, reconcile.AuditConfig{Library: reconcile.NewLibrary(source, asks), Rows: rows, Sample: sample, Progress: progress})
	out.Notes = append(append([]string{}, rows.Notes...), out.Notes...)
	return out, err
}

// noFences is for who never settles what ImageKit said.
type noFences struct{}

func (noFences) Fence(context.Context, []string) (file.Fence, map[string]file.Known, error) {
	return file.Fence{}, nil, errors.New("an audit draws no fence")
}
