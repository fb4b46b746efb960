package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// checkTogether finds what no single variable shows, and fills what follows from
// others. It runs after single mistakes too, so it judges only what is set.
func (c *Config) checkTogether(mistake func(string, ...any)) {
	switch c.Role {
	case Serve, Ingest:
		c.checkCallers(mistake)
	case Migrate:
		c.checkMigrate(mistake)
	}
	if c.uses("TRUEUP_OPS_ADDR") {
		c.checkOperator(mistake)
	}
	if c.uses("TRUEUP_ACCOUNT") && c.Role != Dev {
		c.checkAccount(mistake)
	}
	c.checkGrace(mistake)
	c.checkRetain(mistake)
	c.warn()
}

func (c *Config) uses(name string) bool {
	for _, v := range Table() {
		if v.Name == name {
			return v.UsedBy(c.Role)
		}
	}
	return false
}

func (c *Config) checkCallers(mistake func(string, ...any)) {
	switch {
	case c.Callers.Secret == "" && c.Callers.JWKSURL == "":
		mistake("neither TRUEUP_JWT_SECRET nor TRUEUP_JWKS_URL is usable: one of them says who is calling")
	case c.Callers.Secret != "" && c.Callers.JWKSURL != "":
		mistake("TRUEUP_JWT_SECRET and TRUEUP_JWKS_URL are both set: keep one")
	}
}

// checkMigrate settles on the address migrate uses.
func (c *Config) checkMigrate(mistake func(string, ...any)) {
	if c.Database.Unpooled == "" && c.Database.URL == "" {
		mistake("DATABASE_URL_UNPOOLED is not set (nor DATABASE_URL): migrate needs Postgres without a pooler")
	}
}

// MigrateURL is the address for migrate: the unpooled one, else DATABASE_URL, which
// may turn out to be pooled; Pooled tells.
func (c *Config) MigrateURL() URL {
	if c.Database.Unpooled != "" {
		return c.Database.Unpooled
	}
	return c.Database.URL
}

func (c *Config) checkOperator(mistake func(string, ...any)) {
	host, _, err := net.SplitHostPort(c.Listen.OpsAddr)
	if err == nil && !loopbackHost(host) && len(c.Operator.Tokens) == 0 {
		mistake("TRUEUP_OPS_TOKEN is not set, and TRUEUP_OPS_ADDR (%s) is not on loopback: anyone could operate it", c.Listen.OpsAddr)
	}
}

func (c *Config) checkAccount(mistake func(string, ...any)) {
	if c.Ownership.Account == "" && len(c.ImageKit.URLEndpoints) > 0 {
		c.Ownership.Account = accountOf(c.ImageKit.URLEndpoints[0])
	}
	if c.Ownership.Account == "" && c.Role == Worker && len(c.ImageKit.URLEndpoints) == 0 {
		mistake("neither TRUEUP_ACCOUNT nor IMAGEKIT_URL_ENDPOINT is set: tickets name the account, and the worker opens them")
	}
}

// accountOf is the ImageKit id in a URL endpoint: the first part of its path, or for
// a domain of one's own, which has no id, the host.
func accountOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	id, _, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if id == "" {
		return u.Hostname()
	}
	return id
}

func (c *Config) checkGrace(mistake func(string, ...any)) {
	t := c.Timing
	if t.NotFoundGrace > 0 && t.RetryMaxAge > 0 && t.RetryMaxAge < t.NotFoundGrace {
		mistake("TRUEUP_RETRY_MAX_AGE (%v) is shorter than TRUEUP_NOT_FOUND_GRACE (%v): events would be parked before they are rejected", t.RetryMaxAge, t.NotFoundGrace)
	}
}

// checkRetain refuses a tombstone that would be forgotten while a dead letter, or a retry
// of it, could still bring its file up again; and a ledger line forgotten while its
// report can be asked about. Values that are wrong by themselves are zero here.
func (c *Config) checkRetain(mistake func(string, ...any)) {
	r := c.Retain
	for _, v := range []struct {
		name string
		keep time.Duration
	}{
		{"TRUEUP_RETAIN_DEAD_CALLER", r.DeadCaller}, {"TRUEUP_RETAIN_DEAD_IMAGEKIT", r.DeadImageKit},
		{"TRUEUP_RETAIN_DEAD_DATABASE", r.DeadDatabase}, {"TRUEUP_RETAIN_DEAD_TRUEUP", r.DeadTrueup},
	} {
		if r.Tombstones > 0 && v.keep > 0 && c.Timing.RetryMaxAge > 0 && r.Tombstones <= v.keep+c.Timing.RetryMaxAge {
			mistake("TRUEUP_RETAIN_TOMBSTONES (%v) is not longer than %s (%v) and TRUEUP_RETRY_MAX_AGE (%v) together: a replay could bring up a file whose deletion is forgotten",
				r.Tombstones, v.name, v.keep, c.Timing.RetryMaxAge)
		}
	}
	if r.Ledger > 0 && c.Timing.ReportRetention > 0 && r.Ledger < c.Timing.ReportRetention {
		mistake("TRUEUP_RETAIN_LEDGER (%v) is shorter than TRUEUP_REPORT_RETENTION (%v): reports would be forgotten while they can be asked about", r.Ledger, c.Timing.ReportRetention)
	}
}

func (c *Config) warn() {
	warn := func(s string) { c.Warnings = append(c.Warnings, s) }
	if c.uses("TRUEUP_KEYS") && c.Role != Dev && len(c.Ownership.Keys) == 0 && c.ImageKit.PrivateKey != "" {
		warn("TRUEUP_KEYS is not set: tickets and report ids are sealed with a key made from IMAGEKIT_PRIVATE_KEY, and become unreadable when that is replaced")
	}
	if c.uses("TRUEUP_OWNERSHIP") && c.Ownership.Mode == "claim" {
		warn("TRUEUP_OWNERSHIP=claim: whoever first reports a fresh file gets it; signed allows only tickets")
	}
	if c.Queue.AllowNondurable {
		warn("TRUEUP_ALLOW_NONDURABLE=1: accepted events can be lost in a power failure")
	}
	if s := sslAdvice(c.Database.URL); s != "" {
		warn(s)
	}
}

// refusedByPooler are the start parameters that PgBouncer, and so Neon's pooled
// address, answers with an error.
var refusedByPooler = []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "search_path", "options"}

// checkPostgres never quotes the address: pgx's own error could hold the password.
func checkPostgres(v URL) error {
	cfg, err := pgx.ParseConfig(v.Reveal())
	if err != nil {
		return errors.New("is not a Postgres address such as postgres://user:password@host/database?sslmode=verify-full")
	}
	if !pooledHost(cfg.Host) {
		return nil
	}
	var found []string
	for _, name := range refusedByPooler {
		if _, ok := cfg.RuntimeParams[name]; ok {
			found = append(found, name)
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%s is a pooled address, and a pooler refuses %s: take it out of the address (trueup migrate up sets timeouts on the role instead)",
			cfg.Host, strings.Join(found, ", "))
	}
	if strings.Contains(v.Reveal(), "default_query_exec_mode") && cfg.DefaultQueryExecMode != pgx.QueryExecModeCacheDescribe {
		return fmt.Errorf("%s is a pooled address: default_query_exec_mode must be cache_describe, or left out", cfg.Host)
	}
	return nil
}

// Pooled reports whether the address is behind a transaction pooler by its name, as
// Neon names them.
func Pooled(v URL) bool {
	cfg, err := pgx.ParseConfig(v.Reveal())
	return err == nil && pooledHost(cfg.Host)
}

func pooledHost(host string) bool {
	first, _, _ := strings.Cut(host, ".")
	return strings.HasSuffix(first, "-pooler")
}

func sslAdvice(v URL) string {
	if v == "" {
		return ""
	}
	cfg, err := pgx.ParseConfig(v.Reveal())
	if err != nil || loopbackHost(cfg.Host) || strings.HasPrefix(cfg.Host, "/") {
		return ""
	}
	if cfg.TLSConfig == nil {
		return "DATABASE_URL goes to " + cfg.Host + " without TLS: use sslmode=verify-full"
	}
	if cfg.TLSConfig.InsecureSkipVerify {
		return "DATABASE_URL does not check who answers as " + cfg.Host + ": use sslmode=verify-full"
	}
	return ""
}

// Token is one operator's key to the operator API.
type Token struct {
	Name  string
	Value Secret
}

// OperatorTokens are the tokens with their names, in order; those without a name
// are called operator, operator2, ….
func (c *Config) OperatorTokens() []Token {
	tokens, _ := namedTokens(c.Operator.Tokens) // Load has checked them
	return tokens
}

func namedTokens(all Secrets) ([]Token, error) {
	var out []Token
	names := map[string]bool{}
	for i, s := range all {
		name, value, ok := strings.Cut(s.Reveal(), ":")
		if !ok {
			name, value = "operator", s.Reveal()
			if i > 0 {
				name = fmt.Sprintf("operator%d", i+1)
			}
		}
		switch {
		case name == "" || names[name]:
			return nil, fmt.Errorf("entry %d has no name of its own", i+1)
		case len(value) < 16:
			return nil, fmt.Errorf("entry %d has %d characters, and needs at least 16", i+1, len(value))
		}
		if err := checkWord(value); err != nil {
			return nil, fmt.Errorf("entry %d %w", i+1, err)
		}
		names[name] = true
		out = append(out, Token{Name: name, Value: Secret(value)})
	}
	return out, nil
}
