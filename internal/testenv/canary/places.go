package canary

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Places is everywhere that a campaign looks. What is empty is not looked at.
type Places struct {
	Secrets []Secret
	// Texts are logs, output of commands, answers, by what they are of.
	Texts map[string]string
	// Public and Operator are the addresses of listeners, such as http://127.0.0.1:3000.
	Public, Operator []string
	// OperatorToken opens the operators' pages. Empty: their health and metrics alone.
	OperatorToken string
	// FileIDs are files whose passports are read.
	FileIDs []string
	// Database is a superuser's address: every table of every schema that is not
	// PostgreSQL's own is read, and what its statistics keep of statements.
	Database string
	// NATS is the address of an external queue, every stream of which is read.
	NATS string
	// Dirs are folders of which every file is read: the embedded queue, spools, logs. A
	// file named in Except holds secrets by design.
	Dirs   []string
	Except []string
}

// Report is what a search did.
type Report struct {
	Leaks    []string
	Searched map[string]int // by kind of place: how many texts
	Bytes    int64
}

// Check searches everywhere, fails the test for each leak and for each place that
// cannot be searched, and returns what was searched.
func Check(t testing.TB, p Places) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := Search(ctx, p)
	if err != nil {
		t.Errorf("canaries: %v", err)
	}
	for _, leak := range r.Leaks {
		t.Errorf("a secret left: %s", leak)
	}
	return r
}

// Search is Check without a test.
func Search(ctx context.Context, p Places) (Report, error) {
	f, err := NewFinder(p.Secrets)
	if err != nil {
		return Report{}, err
	}
	s := &search{Places: p, finder: f, report: Report{Searched: map[string]int{}}}
	for name, text := range p.Texts {
		s.look("text", name, text)
	}
	err = errors.Join(s.pages(ctx), s.database(ctx), s.streams(ctx), s.dirs())
	slices.Sort(s.report.Leaks)
	return s.report, err
}

type search struct {
	Places
	finder *Finder
	report Report
}

func (s *search) look(kind, name, text string) {
	s.report.Searched[kind]++
	s.report.Bytes += int64(len(text))
	if found := s.finder.In(text); len(found) > 0 {
		s.report.Leaks = append(s.report.Leaks, fmt.Sprintf("%s in the %s %s: %s", strings.Join(found, ", "), kind, name, s.finder.Excerpt(text)))
	}
}

// pages reads what both listeners show, and follows the operator API's lists to each
// dead letter, run and job.
func (s *search) pages(ctx context.Context) error {
	var all error
	for _, base := range s.Public {
		for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/no-such-path", "/generate-auth-params", "/reports/x"} {
			all = errors.Join(all, s.page(ctx, base, path, "", nil))
		}
	}
	for _, base := range s.Operator {
		for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/metrics", "/", "/api/status"} {
			all = errors.Join(all, s.page(ctx, base, path, "", nil))
		}
		if s.OperatorToken == "" {
			continue
		}
		all = errors.Join(all, s.page(ctx, base, "/api/status", s.OperatorToken, nil), s.page(ctx, base, "/api/dead/count", s.OperatorToken, nil), s.page(ctx, base, "/api/dead/export", s.OperatorToken, nil))
		for _, list := range []string{"/api/dead", "/api/runs", "/api/jobs"} {
			all = errors.Join(all, s.list(ctx, base, list))
		}
		for _, id := range s.FileIDs {
			all = errors.Join(all, s.page(ctx, base, "/api/files/"+id, s.OperatorToken, nil))
		}
	}
	return all
}

// list reads a list page by page, and of the first fifty its items the whole.
func (s *search) list(ctx context.Context, base, path string) error {
	after, shown := "", 0
	for {
		var page struct {
			Items []struct{ ID string }
			Next  string
		}
		if err := s.page(ctx, base, path+"?limit=100&after="+after, s.OperatorToken, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if shown++; shown > 50 || item.ID == "" {
				continue
			}
			if err := s.page(ctx, base, path+"/"+item.ID, s.OperatorToken, nil); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// page looks through one answer, status and headers too. An answer of any status is
// one; none is an error.
func (s *search) page(ctx context.Context, base, path, token string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	res, err := plain.Do(r)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	var text bytes.Buffer
	_ = res.Header.Write(&text)
	text.Write(body)
	s.look("page", path, text.String())
	if into == nil || res.StatusCode == http.StatusNotFound { // a role without that list
		return nil
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return json.Unmarshal(body, into)
}

// database reads every row of every table as text.
func (s *search) database(ctx context.Context) error {
	if s.Database == "" {
		return nil
	}
	c, err := pgx.Connect(ctx, s.Database)
	if err != nil {
		return fmt.Errorf("the database cannot be read: %w", err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	q, err := c.Query(ctx, `SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables
		WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(q, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		return errors.New("the database has no tables: not the right one")
	}
	// The search's own connection is not looked at: its address has the password.
	for _, from := range append(tables, "pg_catalog.pg_stat_activity", "pg_catalog.pg_prepared_statements", "pg_catalog.pg_settings") {
		if err := s.table(ctx, c, from); err != nil {
			return err
		}
	}
	return nil
}

func (s *search) table(ctx context.Context, c *pgx.Conn, from string) error {
	// bytea prints as hex, which a secret inside would hide; the finder knows hex.
	q, err := c.Query(ctx, "SELECT to_jsonb(x)::text FROM "+from+" x")
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	var rows bytes.Buffer
	var row string
	if _, err := pgx.ForEachRow(q, []any{&row}, func() error {
		rows.WriteString(row)
		rows.WriteByte('\n')
		return nil
	}); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	s.look("table", from, rows.String())
	return nil
}

// streams reads every message of every stream, headers and data, and every key-value
// bucket, which is a stream too.
func (s *search) streams(ctx context.Context) error {
	if s.NATS == "" {
		return nil
	}
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return fmt.Errorf("the streams cannot be read: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	names, n := js.StreamNames(ctx), 0
	for name := range names.Name() {
		n++
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return err
		}
		if err := s.stream(ctx, stream, name); err != nil {
			return err
		}
	}
	if n == 0 {
		return errors.Join(errors.New("there is no stream: not the right server"), names.Err())
	}
	return names.Err()
}

func (s *search) stream(ctx context.Context, stream jetstream.Stream, name string) error {
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	described, err := json.Marshal(info.Config)
	if err != nil {
		return err
	}
	s.look("stream", name, string(described))
	for seq := info.State.FirstSeq; seq > 0 && seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // settled meanwhile
		}
		if err != nil {
			return fmt.Errorf("message %d of %s: %w", seq, name, err)
		}
		s.look("message", fmt.Sprintf("%d of %s", seq, name), fmt.Sprint(msg.Subject, msg.Header)+string(msg.Data))
	}
	return nil
}

// dirs reads every file below the folders, in overlapping pieces.
func (s *search) dirs() error {
	for _, dir := range s.Dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // a running process removes files
			case err != nil:
				return err
			case d.Type().IsRegular() && !slices.Contains(s.Except, d.Name()):
				return s.file(path)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("search %s: %w", dir, err)
		}
	}
	return nil
}

func (s *search) file(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	const piece, overlap = 1 << 20, 1 << 10
	r := bufio.NewReaderSize(f, piece)
	var last []byte
	buf := make([]byte, piece)
	for {
		n, err := io.ReadFull(r, buf)
		s.look("file", path, string(last)+string(buf[:n]))
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		last = bytes.Clone(buf[max(0, n-overlap):n])
	}
}
