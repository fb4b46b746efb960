package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/telemetry"
	"github.com/trueup/trueup/migrations"
)

// migrateFlags are what one of the three can be asked for.
type migrateFlags struct {
	forcePooled, compatInsert, print, yes bool
}

func migrateCommand(p *program) *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Lay the schema and the streams, or show how far they are",
		Long: `Lay or remove the schema, and with NATS_URL set the streams. It needs Postgres without a
pooler: DATABASE_URL_UNPOOLED, else DATABASE_URL. An imagekit_files that exists is
inspected first: compatible columns are filled, others left alone, rows kept.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("say which: migrate up, migrate status or migrate down")
		},
	}
	cmd.PersistentFlags().BoolVar(&f.forcePooled, "force-pooled", false, "migrate through an address that looks pooled all the same")
	up := &cobra.Command{Use: "up", Short: "Bring schema and streams to this version; again is harmless", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.migrateUp(cmd.Context(), f) }}
	up.Flags().BoolVar(&f.print, "print", false, "print the SQL that would run, and change nothing")
	up.Flags().BoolVar(&f.compatInsert, "compat-insert", false, "add a trigger for an application that goes on inserting by itself")
	status := &cobra.Command{Use: "status", Short: "Show what stands and what imagekit_files is like", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.migrateStatus(cmd.Context(), f) }}
	down := &cobra.Command{Use: "down", Short: "Drop the schema trueup; imagekit_files and its rows stay", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.migrateDown(cmd.Context(), f) }}
	down.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	cmd.AddCommand(up, status, down)
	return cmd
}

// migration is the configuration of migrate, and its address.
func (p *program) migration(f migrateFlags) (*config.Config, string, error) {
	c, err := p.load(config.Migrate)
	if err != nil {
		return nil, "", err
	}
	url := c.MigrateURL()
	if config.Pooled(url) && !f.forcePooled {
		return nil, "", usagef("%v is a pooled address, and migrate needs one without a pooler: set DATABASE_URL_UNPOOLED (or say --force-pooled)", url)
	}
	return c, url.Reveal(), nil
}

// migrated is the result of migrate up.
type migrated struct {
	Schema  string   `json:"schema"`
	Streams string   `json:"streams"`
	Notes   []string `json:"notes"`
}

func (p *program) migrateUp(ctx context.Context, f migrateFlags) error {
	c, url, err := p.migration(f)
	if err != nil {
		return err
	}
	var notes strings.Builder
	o := migrations.Options{CompatInsert: f.compatInsert, Pooled: f.forcePooled, Notes: &notes}
	if f.print {
		return p.migratePrint(ctx, url, o)
	}
	if err := migrations.Up(ctx, url, o); err != nil {
		return err
	}
	out := migrated{Schema: "up to date", Streams: "not asked for: NATS_URL is not set, and an embedded queue makes its own", Notes: linesOf(notes.String())}
	if c.Queue.URL != "" {
		if err := queue.Migrate(ctx, service.QueueConfig(c, telemetry.NewLogger(telemetry.LogConfig{Out: p.stderr, Level: "warn"}))); err != nil {
			return fmt.Errorf("the schema is up to date, the streams are not: %w", err)
		}
		out.Streams = "up to date"
	}
	return p.result(out, func() error {
		for _, n := range out.Notes {
			p.remark("note: %s", n)
		}
		p.line("schema: %s", out.Schema)
		p.line("streams: %s", out.Streams)
		return nil
	})
}

// migratePrint prints SQL; as JSON it is one string.
func (p *program) migratePrint(ctx context.Context, url string, o migrations.Options) error {
	var sql strings.Builder
	o.Print = &sql
	if err := migrations.Up(ctx, url, o); err != nil {
		return err
	}
	return p.result(map[string]string{"sql": sql.String()}, func() error {
		_, err := fmt.Fprint(p.stdout, sql.String())
		return err
	})
}

func linesOf(text string) []string {
	out := []string{}
	for line := range strings.Lines(text) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// migrationStatus is the result of migrate status.
type migrationStatus struct {
	Steps []migrations.Step     `json:"steps"`
	Table migrations.Inspection `json:"table"`
}

func (p *program) migrateStatus(ctx context.Context, f migrateFlags) error {
	_, url, err := p.migration(f)
	if err != nil {
		return err
	}
	o := migrations.Options{Pooled: f.forcePooled}
	var s migrationStatus
	if s.Steps, err = migrations.Status(ctx, url, o); err != nil {
		return err
	}
	if s.Table, err = migrations.Inspect(ctx, url, o); err != nil {
		return err
	}
	return p.result(s, func() error { return p.table(migrationLines(s)) })
}

func migrationLines(s migrationStatus) (out [][2]string) {
	for _, step := range s.Steps {
		state := "not applied"
		if step.Applied {
			state = "applied " + step.At.UTC().Format("2006-01-02 15:04:05")
		}
		out = append(out, [2]string{step.Name, state})
	}
	put := func(text string) { out = append(out, [2]string{"imagekit_files", text}) }
	if !s.Table.Exists {
		put("does not exist yet")
	}
	for _, r := range s.Table.Refused {
		put("cannot be used: " + r)
	}
	for _, n := range s.Table.Notes() {
		put(n)
	}
	if len(s.Table.Filled) > 0 {
		put(fmt.Sprintf("%d columns are filled", len(s.Table.Filled)))
	}
	if len(s.Table.Extra) > 0 {
		put("left to the application: " + strings.Join(s.Table.Extra, ", "))
	}
	return out
}

func (p *program) migrateDown(ctx context.Context, f migrateFlags) error {
	_, url, err := p.migration(f)
	if err != nil {
		return err
	}
	if !f.yes && !p.sure("This drops the schema trueup of %v: all memory of owners, tombstones and dead letters. imagekit_files stays.", config.URL(url)) {
		return usagef("nothing was changed")
	}
	if err := migrations.Down(ctx, url, migrations.Options{Pooled: f.forcePooled}); err != nil {
		return err
	}
	return p.result(map[string]string{"schema": "dropped"}, func() error {
		p.line("schema: dropped")
		return nil
	})
}

// sure asks on standard error; anything but yes is no.
func (p *program) sure(format string, args ...any) bool {
	p.remark(format+"\nType yes to go on:", args...)
	answer, _ := bufio.NewReader(p.stdin).ReadString('\n') // nobody there is no yes
	return strings.TrimSpace(answer) == "yes"
}
