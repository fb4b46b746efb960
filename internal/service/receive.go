package service

import (
	"context"
	"errors"
	"net/http"

	"github.com/trueup/trueup/ingest"
	"github.com/trueup/trueup/ingest/caller"
	"github.com/trueup/trueup/ingest/grant"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/store"
)

// receiver is step 1 on the queue: the public listener's handler.
func (s *Service) receiver() (http.Handler, error) {
	c := s.Config.Config
	callers, err := caller.New(caller.Config{
		Secret: c.Callers.Secret.Reveal(), JWKSURL: c.Callers.JWKSURL, Issuer: c.Callers.Issuer, Audience: c.Callers.Audience,
		Dev: c.Role == config.Dev, Now: s.Now,
	})
	if err != nil {
		return nil, err
	}
	grants, err := grant.New(grant.Config{
		PublicKey: c.ImageKit.PublicKey, PrivateKey: c.ImageKit.PrivateKey.Reveal(), URLEndpoint: first(c.ImageKit.URLEndpoints),
		Tickets: s.keys, Account: c.Ownership.Account, Signed: c.Ownership.Mode == string(store.BySigned), TicketField: c.Ownership.TicketField,
		Folder: c.Ownership.UploadFolder, AllowOverwrite: c.Ownership.Overwrite, Now: s.Now,
	})
	if err != nil {
		return nil, err
	}
	signatures, err := signature.New(c.ImageKit.WebhookSecrets.Reveal()...)
	if err != nil {
		return nil, err
	}
	var reports ingest.Reports
	if s.Rows != nil {
		reports = reportsOf{s.Rows}
	} else {
		reports = noReports{}
	}
	return ingest.New(ingest.Config{
		Queue: s.Queue, Callers: callers, Grants: grants, Tickets: s.keys, Signatures: signatures,
		Ready: s.ready, Reports: reports, Settled: s.settled, ReportRetention: c.Timing.ReportRetention,
		UserRate: unlimited(c.Listen.RatePerUser), UserBurst: c.Listen.RateBurst,
		FailureRate: unlimited(float64(c.Listen.BadSignatures) / 60), FailureBurst: c.Listen.BadSignatures,
		TrustedProxies: c.Listen.TrustedProxies, CORSOrigins: c.Listen.CORSOrigins,
		Draining: s.draining, Metrics: s.Registry, Logger: s.Logger, Now: s.Now, Random: s.Random,
	})
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// unlimited turns the configuration's 0, no limit, into ingest's.
func unlimited(rate float64) float64 {
	if rate == 0 {
		return -1
	}
	return rate
}

// reportsOf answers what became of a report from the rows.
type reportsOf struct{ rows Rows }

func (r reportsOf) Report(ctx context.Context, eventID, user string) (ingest.ReportStatus, error) {
	found, err := r.rows.Report(ctx, eventID, user)
	if err != nil {
		return ingest.ReportStatus{}, err
	}
	return ingest.ReportStatus{State: ingest.State(found.State), File: found.File}, nil
}

// noReports is an ingest that was given no database: it accepts, and cannot tell.
type noReports struct{}

func (noReports) Report(context.Context, string, string) (ingest.ReportStatus, error) {
	return ingest.ReportStatus{}, errors.New("this ingest has no DATABASE_URL")
}

// ready says whether events are taken; it sends no SQL and asks nobody.
func (s *Service) ready() ingest.Readiness {
	q := s.Queue.Ready()
	r := ingest.Readiness{Accepting: q.Accepting, Durability: q.Durability, Why: q.Why}
	r.Database, r.ImageKit = s.health()
	return r
}

// health says how the database and ImageKit were when somebody last had reason to ask
// them; empty where nobody here asks.
func (s *Service) health() (database, imagekit string) {
	if s.worker == nil {
		return "", ""
	}
	database, imagekit = "ok", "ok"
	switch p := s.worker.State().Paused; p.Why {
	case "database":
		database = "down since " + p.Since.UTC().Format("15:04:05Z")
	case "imagekit":
		imagekit = "down since " + p.Since.UTC().Format("15:04:05Z")
	}
	return database, imagekit
}
