package testenv

import (
	"context"
	"syscall"
	"testing"

	"github.com/trueup/trueup/internal/localpg"
)

// PostgresProcess is a server of one test's own, which the test may kill, stop and
// start again. Data, port and password stay the same throughout.
type PostgresProcess struct {
	t      testing.TB
	cfg    localpg.Config
	server *localpg.Server
	url    string
}

// PostgresServer starts a server for this test alone; it is stopped and removed at
// the test's end. A server that was killed stays down until Start.
func PostgresServer(t testing.TB) *PostgresProcess {
	t.Helper()
	shared.mu.Lock()
	found := programs(t)
	shared.mu.Unlock()
	p := &PostgresProcess{t: t, cfg: localpg.Config{Dir: Dir(t), Programs: found, Parameters: testParameters(), KeepDown: true}}
	t.Cleanup(p.Stop)
	p.Start()
	return p
}

// Start starts the server again after Kill9 or Stop; on one that runs it does
// nothing.
func (p *PostgresProcess) Start() {
	p.t.Helper()
	if p.server != nil {
		return
	}
	server, err := localpg.Start(context.Background(), p.cfg)
	if err != nil {
		p.t.Fatalf("testenv: %v", err)
	}
	if now := server.URL(localpg.Superuser); p.url != "" && p.url != now {
		_ = server.Stop()
		p.t.Fatalf("testenv: PostgreSQL came back at another URL; its port was taken by another program meanwhile")
	}
	p.server, p.url = server, server.URL(localpg.Superuser)
}

// Stop stops the server as a fast shutdown does.
func (p *PostgresProcess) Stop() {
	p.t.Helper()
	if p.server == nil {
		return
	}
	err := p.server.Stop()
	p.server = nil
	if err != nil {
		p.t.Fatalf("testenv: %v", err)
	}
}

// Kill9 kills the server's first process and returns when it is gone. What was
// committed is there again after Start.
func (p *PostgresProcess) Kill9() {
	p.t.Helper()
	if err := syscall.Kill(p.server.PID(), syscall.SIGKILL); err != nil {
		p.t.Fatalf("testenv: kill -9 PostgreSQL: %v", err)
	}
	<-p.server.Done()
	p.Stop()
}

// URL is the server's empty database, for its superuser; it is the same after a
// restart.
func (p *PostgresProcess) URL() string { return p.url }
