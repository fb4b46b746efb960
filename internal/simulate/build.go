package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/library"
	"github.com/trueup/trueup/internal/simulate/queue"
	"github.com/trueup/trueup/internal/simulate/rows"
	"github.com/trueup/trueup/internal/simulate/wire"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/ticket"
)

// What every simulated installation is told. None of it opens anything real.
const (
	publicKey     = "public_simulated"
	privateKey    = "private_simulated"
	account       = "simulated"
	webhookSecret = "whsec_simulated-secret-0123456789abcdef"
	jwtSecret     = "simulated-jwt-secret-0123456789abcdef"
	issuer        = "https://app.example"
	audience      = "trueup"
	opsToken      = "simulated-operator-token"
	ticketKey     = "simulated-ticket-key-0123456789abcdef"
	claimWindow   = time.Hour
	roomy         = 64 << 20 // bytes in the queue
	// turnTTL is longer than in production, because each renewal costs time outside.
	turnTTL = time.Minute
)

// Options say how a run is carried out; they change nothing of what happens in it.
type Options struct {
	// Dir is for what processes keep on disk; required.
	Dir string
	// Whole keeps the whole story of the run, not only its end.
	Whole bool
	// Log hears what the processes log; nil: nobody does.
	Log io.Writer
}

// build makes the world of a plan; nothing moves in it yet.
func build(ctx context.Context, p Plan, o Options, reached *Reached) (*world, error) {
	began := time.Now()
	w := &world{Plan: p, Options: o, began: began, reached: reached, trace: newTrace(began, o.Whole), record: newRecord(), nth: map[string]uint64{}}
	w.ctx, w.stop = context.WithCancel(ctx)
	w.people, w.post = &people{w: w}, &post{w: w}
	w.base = baseConfig(p.Shape)
	w.database = rows.New(chance.Seeded(mixed(p.Seed ^ 0xda7a)))
	w.stream = queue.NewStream(queue.Server{Shared: !p.Shape.Serve(), MaxBytes: roomy, Shuffle: newDraw(p.Seed, 10), TurnTTL: turnTTL})
	if err := w.buildLibraries(); err != nil {
		return nil, err
	}
	w.buildSlots()
	w.arm()
	return w, nil
}

func (w *world) buildLibraries() error {
	ours, err := library.Open(library.Config{PublicKey: publicKey, PrivateKey: privateKey, AccountID: account,
		WebhookSecret: webhookSecret, WebhookURL: "http://trueup.example/webhooks/imagekit", Sender: w.post})
	if err != nil {
		return err
	}
	theirs, err := library.Open(library.Config{PublicKey: publicKey, PrivateKey: privateKey, AccountID: "another"})
	if err != nil {
		return err
	}
	w.ours, w.theirs = ours, theirs
	w.imagekit = &imagekitWay{world: w, library: ours, another: theirs, seen: map[string][][]byte{}, flick: map[*armed]string{}}
	if err := w.control(theirs, http.MethodPost, "files/generate", map[string]any{"count": 3, "folder": "/theirs"}); err != nil {
		return err
	}
	s := w.Shape
	settings := map[string]any{
		"anyCustomMetadata": true, "idSearch": !s.NoIDSearch, "seed": w.Seed, "rateLimit": map[string]any{"perSecond": s.Rate, "burst": 20},
		"writeRateLimit": map[string]any{"perSecond": 0, "burst": 0},
		"webhooks":       map[string]any{"enabled": false, "versionEvents": s.VersionEvents, "overwriteAlsoUpdates": s.OverwriteAlso},
	}
	if err := w.control(ours, http.MethodPatch, "settings", settings); err != nil {
		return err
	}
	for i := range s.Files {
		w.people.uploadServer(newDraw(w.Seed, uint64(1000+i)))
	}
	w.reachedSurroundings()
	return w.control(ours, http.MethodPatch, "settings", map[string]any{"webhooks": map[string]any{"enabled": true},
		"listLag": s.ListLag.String(), "visibilityDelay": s.VisibleAfter.String()})
}

// reachedSurroundings counts what holds during the whole run.
func (w *world) reachedSurroundings() {
	for cell, there := range map[string]bool{
		"imagekit/list/lag": w.Shape.ListLag > 0, "imagekit/details/late-visible": w.Shape.VisibleAfter > 0, "imagekit/search/no-id": w.Shape.NoIDSearch,
	} {
		if there {
			w.reached.Hit(cell)
		}
	}
}

// unhide ends what makes the library look older than it is.
func (w *world) unhide() {
	_ = w.control(w.ours, http.MethodPatch, "settings", map[string]any{"listLag": "0s", "visibilityDelay": "0s", "idSearch": true})
}

func (w *world) control(l *library.Library, method, path string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	a, err := roundTrip(w.ctx, l, asked{method: method, path: "/_emulator/" + path, body: raw})
	if err != nil || a.status/100 != 2 {
		return fmt.Errorf("emulator: %s %s: %d %s: %w", method, path, a.status, a.body, err)
	}
	return nil
}

func (w *world) buildSlots() {
	s := w.Shape
	add := func(role config.Role, n int) {
		name := fmt.Sprintf("%s-%d", role, n)
		w.slots = append(w.slots, &slot{name: name, role: role, dir: w.spool(name)})
	}
	if s.Serve() {
		add(config.Serve, 1)
		return
	}
	for i := range s.Ingests {
		add(config.Ingest, i+1)
	}
	for i := range s.Workers {
		add(config.Worker, i+1)
	}
}

func baseConfig(s Shape) config.Config {
	c := config.Config{}
	c.Listen = config.Listen{Addr: "127.0.0.1:0", OpsAddr: "127.0.0.1:0", RatePerUser: 0, RateBurst: 200, Drain: 6 * time.Second}
	c.Callers = config.Callers{Secret: jwtSecret, Issuer: issuer, Audience: audience}
	c.ImageKit = config.ImageKit{PublicKey: publicKey, PrivateKey: privateKey, URLEndpoints: []string{library.Origin + "/" + account},
		WebhookSecrets: config.Secrets{webhookSecret}, BaseURL: library.Origin, RateMax: 1000, Timeout: 10 * time.Second, Patience: 3 * time.Second}
	c.Ownership = config.Ownership{Mode: "claim", ClaimWindow: claimWindow, TicketField: s.TicketField, Keys: config.Secrets{ticketKey}, Account: account}
	if s.Signed {
		c.Ownership.Mode = "signed"
	}
	c.Timing = config.Timing{NotFoundGrace: s.NotFoundGrace, AbsentConfirm: s.AbsentConfirm, RetryMaxAge: s.RetryMaxAge,
		ReportRetention: 30 * 24 * time.Hour, ReconcileEvery: s.ReconcileEvery, PollEvery: s.PollEvery}
	year := 365 * 24 * time.Hour
	c.Retain = config.Retain{DeadCaller: year, DeadImageKit: year, DeadDatabase: year, DeadTrueup: year, Ledger: year, Tombstones: 2 * year}
	c.Operator = config.Operator{Tokens: config.Secrets{"operator:" + opsToken}}
	return c
}

// doors are this incarnation's own.
func (p *process) doors(ctx context.Context) (service.Doors, error) {
	w := p.world
	d := service.Doors{Now: p.slot.time, Random: p.random(), Listen: func(context.Context, string, string) (net.Listener, error) { return newIdle(), nil }}
	q, err := queue.Open(w.stream, queue.Config{Role: string(p.slot.role), Hook: p.hook, Random: p.random()})
	if err != nil {
		return d, err
	}
	p.queue, d.Queue = q, q
	r := rows.Open(w.database, rows.Config{Hook: p.hook, Random: p.random(), Config: store.Config{
		AbsentConfirm: w.Shape.AbsentConfirm, ClaimWindow: claimWindow, Ownership: store.Ownership(w.base.Ownership.Mode)}})
	d.Rows = r
	if p.slot.role == config.Ingest {
		return d, nil
	}
	k, err := imagekit.New(imagekit.Config{BaseURL: library.Origin, PrivateKey: privateKey, Timeout: w.base.ImageKit.Timeout,
		TicketField: w.Shape.TicketField, LooksLikeTicket: ticket.LooksLikeTicket, UserAgent: "trueup/" + p.name, Transport: &line{w.imagekit, p}})
	if err != nil {
		return d, err
	}
	d.Library = k
	return d, nil
}

// connect makes the ways to its listeners.
func (p *process) connect() {
	public, ops := p.service.Handlers()
	if public != nil {
		p.public = &wire.Direct{Handler: public}
	}
	p.ops = &wire.Direct{Handler: ops}
}

// idle is a listener that nobody ever calls: requests go to the handlers directly.
type idle struct {
	once   sync.Once
	closed chan struct{}
}

func newIdle() *idle { return &idle{closed: make(chan struct{})} }

func (l *idle) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *idle) Close() error              { l.once.Do(func() { close(l.closed) }); return nil }
func (l *idle) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3000} }

func (w *world) logger(name string) *slog.Logger {
	if w.Log == nil {
		return nil
	}
	return slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("process", name)
}

// shut closes what the world itself had open.
func (w *world) shut() {
	w.stop()
	_ = w.ours.Close()
	_ = w.theirs.Close()
	_ = os.RemoveAll(w.Dir)
}

// settings are what the checker needs to know of what trueup was told.
func (w *world) settings() check.Settings {
	s := w.Shape
	return check.Settings{
		AbsentConfirm: s.AbsentConfirm, NotFoundGrace: s.NotFoundGrace, ClaimWindow: claimWindow, RetryMaxAge: s.RetryMaxAge,
		ReconcileEvery: s.ReconcileEvery, ReportRetention: 30 * 24 * time.Hour, Signed: s.Signed, TicketField: s.TicketField,
		Keys: []string{ticketKey}, Account: account, Markers: []string{marker}, MaxWait: 15 * time.Minute,
	}
}

// fill leaves the queue no room for a while.
func (w *world) fill(f Fault) {
	w.reached.Hit("queue/full")
	w.stream.Resize(1)
	w.later(f.For, func() { w.stream.Resize(roomy) })
}
