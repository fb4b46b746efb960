package emulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what an Emulator is. Dir (or InMemory), PublicKey and PrivateKey are
// required.
type Config struct {
	// Addr is where to listen; zero means 127.0.0.1:0, a free port.
	Addr string
	// Dir holds everything that survives a restart; it is created. One process at a
	// time may use it.
	Dir string
	// InMemory keeps nothing at all on disk, and forgets everything at the end; Dir must
	// be empty then.
	InMemory bool
	// PublicKey and PrivateKey are the account's pair.
	PublicKey  string
	PrivateKey string
	// WebhookSecret signs webhooks; zero means that none are sent.
	WebhookSecret string
	// WebhookURL is the default of settings.webhooks.url; zero means that none are
	// sent until a PATCH names one.
	WebhookURL string
	// AccountID is the first path segment of every delivery URL; zero means demo_id.
	AccountID string
	// PublicURL is the origin written into the URLs it returns, for when others reach
	// it by another name; zero means the address it listens on.
	PublicURL string
	// Logger gets one line for what an operator should know; zero discards.
	Logger *slog.Logger
	// Now is the clock; zero means time.Now.
	Now func() time.Time
	// Sender carries the webhooks; zero means HTTP.
	Sender http.RoundTripper
}

func (c Config) complete() (Config, error) {
	c.Addr = cmp.Or(c.Addr, "127.0.0.1:0")
	c.AccountID = cmp.Or(c.AccountID, "demo_id")
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.InMemory && c.Dir != "":
		return c, errors.New("emulator: an emulator in memory has no Dir")
	case c.Dir == "" && !c.InMemory:
		return c, errors.New("emulator: Dir is required")
	case c.PublicKey == "" || c.PrivateKey == "":
		return c, errors.New("emulator: PublicKey and PrivateKey are required")
	case strings.HasPrefix(c.AccountID, "_") || strings.Contains(c.AccountID, "/"):
		return c, fmt.Errorf("emulator: AccountID %q cannot be a path segment of a URL endpoint", c.AccountID)
	}
	return c, nil
}

// Emulator is one ImageKit account. Make it with New, then Run it once.
type Emulator struct {
	Config

	unlock func()
	blobs  blobs
	disk   *journal
	sender *sender
	rates  *rates
	stats  *stats
	dice   *dice

	// now in force; replaced whole under mu, read without it.
	settings atomic.Pointer[Settings]

	// mu guards lib. It is held while a change is checked, written to the journal
	// and applied, so that memory never shows what a kill -9 could take back.
	mu  sync.RWMutex
	lib *library

	jobs, purges sync.Map // id → what became of it, until the process ends

	listener net.Listener
	origin   atomic.Pointer[string]
	closing  sync.Once
	closed   error
}

// New opens the account kept in c.Dir, or an empty one. Whoever gets an Emulator
// ends it with Run or, if it never ran, with Close.
func New(c Config) (*Emulator, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	e := &Emulator{Config: c, stats: newStats(), rates: newRates()}
	if c.InMemory {
		e.remember()
		return e, nil
	}
	e.blobs.dir = filepath.Join(c.Dir, "blobs")
	if err := os.MkdirAll(e.blobs.dir, 0o700); err != nil {
		return nil, fmt.Errorf("emulator: make %s: %w", c.Dir, err)
	}
	if e.unlock, err = lockDir(c.Dir); err != nil {
		return nil, fmt.Errorf("emulator: %s is in use by another process: %w", c.Dir, err)
	}
	if err := e.load(); err != nil {
		e.unlock()
		return nil, fmt.Errorf("emulator: open %s: %w", c.Dir, err)
	}
	e.sender = newSender(e)
	return e, nil
}

// remember opens an account in memory.
func (e *Emulator) remember() {
	e.unlock, e.blobs.kept = func() {}, &sync.Map{}
	e.lib, e.disk = newLibrary(), newMemory()
	e.settings.Store(e.defaults())
	e.dice = newDice(e.settings.Load().Seed)
	e.sender = newSender(e)
}

func (e *Emulator) load() error {
	e.lib = newLibrary()
	e.settings.Store(e.defaults())
	path := filepath.Join(e.Dir, "journal.jsonl")
	disk, err := openJournal(path, e.lib.apply)
	if err != nil {
		return err
	}
	e.disk = disk
	if err := e.obey(); err != nil {
		return errors.Join(err, disk.close())
	}
	e.dice = newDice(e.settings.Load().Seed)
	return e.blobs.sweep(e.lib.blobs())
}

// Listen binds the address, so that URL is known before Run.
func (e *Emulator) Listen() error {
	if e.listener != nil {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", e.Addr)
	if err != nil {
		return fmt.Errorf("emulator: listen on %s: %w", e.Addr, err)
	}
	e.listener = l
	origin := cmp.Or(e.PublicURL, "http://"+l.Addr().String())
	e.origin.Store(&origin)
	return nil
}

// URL is the origin of everything it serves, without a trailing slash; empty
// before Listen.
func (e *Emulator) URL() string {
	if p := e.origin.Load(); p != nil {
		return *p
	}
	return e.PublicURL
}

// Endpoint is the account's URL endpoint, without a trailing slash.
func (e *Emulator) Endpoint() string { return e.URL() + "/" + e.AccountID }

// Run serves until ctx is done, then lets requests in flight end and closes what
// New opened.
func (e *Emulator) Run(ctx context.Context) error {
	defer e.Close()
	if err := e.Listen(); err != nil { //nolint:contextcheck // binding a port waits for nothing
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           e.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute,
		WriteTimeout:      5 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	var sending sync.WaitGroup
	sending.Go(func() { e.Send(ctx) })
	stopped := make(chan struct{})
	go func() {
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close()
		}
		close(stopped)
	}()
	err := server.Serve(e.listener)
	cancel()
	<-stopped
	sending.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return e.Close()
	}
	return errors.Join(fmt.Errorf("emulator: serve: %w", err), e.Close())
}

// Handler serves everything, for those who want neither Listen nor Run. PublicURL is then
// the origin of all URLs.
func (e *Emulator) Handler() http.Handler { return e.routes() }

// Send sends webhooks until ctx is done. Run does so.
func (e *Emulator) Send(ctx context.Context) { e.sender.run(ctx) }

// Close releases what New and Listen took. Run calls it.
func (e *Emulator) Close() error {
	e.closing.Do(func() {
		if e.listener != nil {
			_ = e.listener.Close()
		}
		e.closed = e.disk.close()
		e.unlock()
	})
	return e.closed
}

// change is how everything is changed: decide looks at the library, which does not
// move meanwhile, and says what to change and what to answer. The answer is given
// only after the change is on disk, and webhooks are sent only after that.
func (e *Emulator) change(decide func() ([]change, answer)) answer {
	e.mu.Lock()
	changes, a := decide()
	seq, err := e.commit(changes)
	e.mu.Unlock()
	if err == nil && len(changes) > 0 {
		err = e.disk.sync(seq)
	}
	if err != nil {
		e.Logger.Error("emulator: change not stored", "error", err)
		return refuse(http.StatusInternalServerError, "The emulator could not store the change: "+err.Error())
	}
	for _, c := range changes {
		if c.Hook != nil {
			e.sender.add(c.Hook)
		}
	}
	return a
}

// commit writes changes to the journal and then applies them; mu is held.
func (e *Emulator) commit(changes []change) (uint64, error) {
	if len(changes) == 0 {
		return 0, nil
	}
	seq, err := e.disk.append(changes)
	if err != nil {
		return 0, err
	}
	now := e.Now()
	lag := time.Duration(e.settings.Load().ListLag)
	for i := range changes {
		e.lib.remember(&changes[i], now, lag)
		if h, is := e.lib.happening(&changes[i], now); is {
			e.stats.history.add(h)
		}
		if err := e.lib.apply(&changes[i]); err != nil {
			return 0, err
		}
		if changes[i].Settings != nil || changes[i].Reset {
			if err := e.obey(); err != nil {
				return 0, err
			}
		}
	}
	if e.disk.bloated() {
		e.lib.forgetTokens(now.Unix())
		if err := e.disk.rewrite(e.lib.snapshot()); err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// obey puts the library's settings in force.
func (e *Emulator) obey() error {
	s, err := e.settingsFrom(e.lib.patch)
	if err != nil {
		return err
	}
	e.settings.Store(s)
	return nil
}

// note commits what nobody waits for: a webhook's progress, a fault's count.
func (e *Emulator) note(c change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.commit([]change{c}); err != nil {
		e.Logger.Error("emulator: progress not stored", "error", err)
	}
}
