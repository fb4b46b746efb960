package collect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/check/collect"
	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// everything puts one line into every table, with every column set.
const everything = `
INSERT INTO public.imagekit_files (file_id, file_url, user_id, upload_timestamp, file_name, file_path, file_type, mime, size_bytes, width, height, thumbnail_url,
	tags, custom_metadata, version_id, is_private, remote_updated_at, synced_at)
	VALUES ('a', 'https://x/a', 'u', '2026-03-01 12:00:00.123456+00', 'n', '/n', 'image', 'image/png', 9007199254740993, 7, 5, 't', '{x,"y z"}', '{"k": 1.50}', 'v', true,
		'2026-03-02 12:00+00', '2026-03-03 12:00+00'),
	('b', 'https://x/b', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'infinity', NULL);
INSERT INTO trueup.file_state (file_id, seen, high, hash, suspect_fence, suspect_at, counted_at, owner, owner_kind, owner_at, owner_event, claim_open, ticket, flags)
	VALUES ('a', 7, '2026-03-02 12:00+00', 11, 6, '2026-03-04 12:00+00', '2026-03-05 12:00+00', 'u', 'claimed', '2026-03-06 12:00+00', 'E', true, 'T', '{f}');
INSERT INTO trueup.file_state (file_id, seen, gone_at, gone_why) VALUES ('c', 8, '2026-03-07 12:00+00', 'confirmed');
INSERT INTO trueup.ledger (id, file_id, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind, fence, status, request_id, detail)
	VALUES ('L', 'a', 'client', 'client', 'report', 'u', '2026-03-08 12:00+00', 'present', 'applied', 'added', 'done', 5, 200, 'R',
		'{"webhookId":"w","deadLetter":"d","event":"e","claim":"held","run":"r","tries":3}');
INSERT INTO trueup.retries (event_id, file_id, source, origin, kind, user_id, accepted_at, webhook_id, dead_letter, body, tries, due_at, reason)
	VALUES ('R', 'a', 'webhook', 'webhook', 'file.created', 'u', '2026-03-08 12:00+00', 'w', 'd', 'body', 4, '2026-03-09 12:00+00', 'limited');
INSERT INTO trueup.dead_letters (id, event_id, file_id, source, origin, kind, user_id, accepted_at, webhook_id, class, reason, state, body, headers, attempts, replay_event, history, masked)
	VALUES ('D', 'DE', 'a', 'replay', 'client', 'report', 'u', '2026-03-08 12:00+00', 'w', 'imagekit', 'gave_up', 'replaying', '\x00ff', '{"h":"v"}',
		'[{"at":"2026-03-08T12:00:00Z","class":"imagekit","reason":"limited","status":429,"requestId":"q","version":"1"}]', 'RE', '[{"event":"x"}]', '[{"from":1,"to":2}]');
INSERT INTO trueup.runs (id, kind, state, started_by, remote_rows, live_rows, whole, candidates, fuse, expected_deletions, account_accepted_by, error)
	VALUES ('run', 'run', 'partial', 'ops', 3, 4, true, 5, 'too many', 6, 'ops', 'why');
INSERT INTO trueup.findings (run_id, file_id, kind, status, reason, event_id) VALUES ('run', 'a', 'orphaned', 'refused', 'fuse_latched', 'FE');
INSERT INTO trueup.audit (id, who, verb, filter, note) VALUES ('A', 'ops', 'assign', '{"file":"a","user":"u2"}', 'why');
UPDATE trueup.fuse SET latched_at = '2026-03-10 12:00+00', why = 'w', released_at = '2026-03-09 12:00+00', released_by = 'ops', account_doubt = 'doubt';
INSERT INTO trueup.expired_counts VALUES ('ledger', 'done', '', 12);`

func TestDatabase(t *testing.T) {
	url := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	empty, err := collect.Database(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if empty.Rows == nil || empty.States == nil || empty.Ledger == nil || empty.Retries == nil || empty.DeadLetters == nil || empty.Runs == nil ||
		empty.Findings == nil || empty.Audit == nil || empty.Fuse == nil || empty.Expired == nil {
		t.Errorf("an empty table is not collected: %+v", empty)
	}
	execute(t, url, everything)
	d, err := collect.Database(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	got := tell(t, d)
	for _, want := range []string{
		`FileURL:https://x/a UserID:u UploadTimestamp:2026-03-01T12:00:00.123456Z FileName:n FilePath:/n FileType:image MIME:image/png SizeBytes:9007199254740993 Width:7 Height:5 ThumbnailURL:t Tags:[x y z] CustomMetadata:map[k:1.50] VersionID:v IsPrivate:true RemoteUpdatedAt:2026-03-02T12:00:00Z SyncedAt:2026-03-03T12:00:00Z`,
		`UploadTimestamp:<nil> FileName:<nil>`, `Tags:<nil> CustomMetadata:<nil> VersionID:<nil> IsPrivate:<nil> RemoteUpdatedAt:0001-01-01T00:00:00Z SyncedAt:<nil>`,
		`FileID:a Seen:7 High:2026-03-02T12:00:00Z Hash:11 GoneAt:<nil> GoneWhy: SuspectFence:6 SuspectAt:2026-03-04T12:00:00Z CountedAt:2026-03-05T12:00:00Z Owner:u OwnerKind:claimed OwnerAt:2026-03-06T12:00:00Z OwnerEvent:E ClaimOpen:true Ticket:T Flags:[f]`,
		`FileID:c Seen:8 High:<nil> Hash:<nil> GoneAt:2026-03-07T12:00:00Z GoneWhy:confirmed`,
		`FileID:a Source:client Origin:client Kind:report User:u AcceptedAt:2026-03-08T12:00:00Z Verdict:present Outcome:applied Reason:added EndKind:done Fence:5 Status:200 RequestID:R WebhookID:w DeadLetter:d Event:e Claim:held Run:r Tries:3`,
		`EventID:R FileID:a Source:webhook Origin:webhook Kind:file.created User:u AcceptedAt:2026-03-08T12:00:00Z WebhookID:w DeadLetter:d Body:Ym9keQ== Tries:4 DueAt:2026-03-09T12:00:00Z Reason:limited`,
		`EventID:DE FileID:a Source:replay Origin:client Kind:report User:u AcceptedAt:2026-03-08T12:00:00Z WebhookID:w Class:imagekit Reason:gave_up State:replaying Headers:map[h:v] Body:AP8= Masked:[map[from:1 to:2]]`,
		`requestId:q status:429 version:1]] History:[map[event:x]] ReplayEvent:RE`,
		`Listed:3 Rows:4 Whole:true Candidates:5 Fuse:too many ExpectedDeletions:6 AccountAcceptedBy:ops Error:why`,
		`RunID:run FileID:a Kind:orphaned Status:refused Reason:fuse_latched EventID:FE`, `Who:ops Verb:assign File:a User:u2 Note:why`,
		`LatchedAt:2026-03-10T12:00:00Z Why:w ReleasedAt:2026-03-09T12:00:00Z ReleasedBy:ops AccountDoubt:doubt`, `Place:ledger State:done Class: Count:12`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not collected: %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	columns, err := collect.Columns(t.Context(), url)
	if err != nil || len(columns) != 15 || slices.Contains(columns, "user_id") {
		t.Errorf("columns %q: %v", columns, err)
	}
}

// tell writes every field of a dump as Name:value, in the order of the fields.
func tell(t *testing.T, d check.Dump) string {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	in := json.NewDecoder(strings.NewReader(string(b)))
	in.UseNumber()
	var out strings.Builder
	var value func(top bool)
	value = func(top bool) {
		token, err := in.Token()
		if err != nil {
			t.Fatal(err)
		}
		switch token {
		case json.Delim('{'):
			lower := false
			var parts []string
			for in.More() {
				name, _ := in.Token()
				keep := out.String()
				out.Reset()
				value(false)
				parts = append(parts, fmt.Sprintf("%v:%s", name, out.String()))
				lower = lower || strings.ToLower(name.(string)) == name.(string) || name == "requestId"
				out.Reset()
				out.WriteString(keep)
			}
			_, _ = in.Token()
			if lower { // JSON of the database's own: a map
				slices.Sort(parts)
				fmt.Fprintf(&out, "map[%s]", strings.Join(parts, " "))
			} else {
				out.WriteString(strings.Join(parts, " "))
			}
			if top {
				out.WriteString("\n")
			}
		case json.Delim('['):
			out.WriteString("[")
			for first := true; in.More(); first = false {
				if !first {
					out.WriteString(" ")
				}
				value(false)
			}
			_, _ = in.Token()
			out.WriteString("]")
		default:
			fmt.Fprint(&out, token)
		}
	}
	value(true)
	return out.String()
}

func TestDatabaseIsOnlyRead(t *testing.T) {
	url := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	role := `CREATE ROLE only_reads LOGIN PASSWORD 'x' IN ROLE pg_read_all_data`
	execute(t, url, `DROP ROLE IF EXISTS only_reads`, role)
	t.Cleanup(func() { execute(t, url, `DROP ROLE only_reads`) })
	c, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	reader := fmt.Sprintf("postgres://only_reads:x@%s:%d/%s", c.Host, c.Port, c.Database)
	if _, err := collect.Database(t.Context(), reader); err != nil {
		t.Error(err)
	}
}

func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%.60s: %v", sql, err)
		}
	}
}

func publish(t *testing.T, c queue.Config, n int) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	for i := range n {
		e := event.Event{ID: fmt.Sprintf("01JNXXXXXXXXXXXXXXXXX%05d", i), Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: "f",
			User: "u", AcceptedAt: time.Unix(int64(i), 0), Body: []byte(`{"fileId":"f"}`)}
		testenv.Eventually(t, time.Minute, func() error { return q.Publish(t.Context(), []event.Event{e}) })
	}
	return q
}

func numbered(t *testing.T, got []check.Message, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d messages, want %d", len(got), n)
	}
	for i, m := range got {
		if !strings.Contains(string(m.Data), fmt.Sprintf("%05d", i)) || m.ID == "" || m.StoredAt.IsZero() || i > 0 && m.Sequence <= got[i-1].Sequence {
			t.Errorf("message %d: %+v", i, m)
		}
	}
}

func TestStream(t *testing.T) {
	n := testenv.NATSServer(t, testenv.NATSOptions{})
	c := queue.Config{URL: n.URL(), Prefix: "collected"}
	if err := queue.Migrate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	q := publish(t, c, 5)
	for range 2 { // collecting twice takes nothing away
		got, err := collect.Stream(t.Context(), n.URL(), "collected")
		if err != nil {
			t.Fatal(err)
		}
		numbered(t, got, 5)
	}
	// What is taken and not settled is still there; what is settled leaves a gap.
	var held []*event.Delivery
	for range 3 {
		d, err := q.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, d)
	}
	if err := held[1].Ack(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		got, err := collect.Stream(t.Context(), n.URL(), "collected")
		if err == nil && len(got) != 4 {
			err = fmt.Errorf("%d messages", len(got))
		}
		return err
	})
}

func TestStoppedStream(t *testing.T) {
	dir := t.TempDir()
	q := publish(t, queue.Config{Dir: dir, Prefix: "collected"}, 5)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := collect.StoppedStream(t.Context(), dir, "collected")
		if err != nil {
			t.Fatal(err)
		}
		numbered(t, got, 5)
	}
	if _, err := collect.StoppedStream(t.Context(), t.TempDir(), "collected"); err == nil {
		t.Error("an empty directory is a queue")
	}
}

// library is a real stand-in for ImageKit, whose webhooks a test receives.
func library(t *testing.T, answer int) *collect.ImageKit {
	t.Helper()
	ingest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answer) }))
	t.Cleanup(ingest.Close)
	e, err := emulator.New(emulator.Config{Dir: t.TempDir(), PublicKey: "public_x", PrivateKey: "private_x", WebhookSecret: "whsec_0123456789abcdef", WebhookURL: ingest.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return &collect.ImageKit{Client: client, URL: e.URL()}
}

func call(t *testing.T, k *collect.ImageKit, method, path, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, k.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(path, "/api/") {
		r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	}
	r.SetBasicAuth("private_x", "")
	answer, err := k.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
}

const upload = "--x\r\nContent-Disposition: form-data; name=\"fileName\"\r\n\r\na.txt\r\n--x\r\nContent-Disposition: form-data; name=\"useUniqueFileName\"\r\n\r\nfalse\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n"

func TestImageKit(t *testing.T) {
	k := library(t, http.StatusOK)
	call(t, k, "POST", "/api/v1/files/upload", upload)
	if err := k.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(k.Truth) != 1 || len(k.History) != 1 || k.History[0].Kind != check.Uploaded {
		t.Fatalf("truth %v, history %v", k.Truth, k.History)
	}
	id := k.History[0].FileID
	if k.Truth[id] == nil || !strings.Contains(string(k.History[0].File), `"createdAt"`) {
		t.Errorf("truth %s, history %s", k.Truth[id], k.History[0].File)
	}
	call(t, k, "POST", "/_emulator/faults", `{"path":"*/details","status":429,"headers":{"X-RateLimit-Reset":"1500"},"times":1}`)
	call(t, k, "GET", "/v1/files/"+id+"/details", "")
	call(t, k, "DELETE", "/v1/files/"+id, "")
	testenv.Eventually(t, time.Minute, func() error {
		if err := k.Collect(t.Context()); err != nil || len(k.Deliveries) != 2 {
			return fmt.Errorf("%d deliveries: %w", len(k.Deliveries), err)
		}
		return nil
	})
	if len(k.Truth) != 0 || k.Truth == nil || len(k.History) != 2 || k.History[1].Kind != check.Deleted || k.History[1].File != nil {
		t.Errorf("truth %v, history %v", k.Truth, k.History)
	}
	if r := k.Requests; len(r) != 3 || r[1].Status != 429 || r[1].Reset != 1500*time.Millisecond || r[1].Endpoint != "details" || r[1].Body != "object" {
		t.Errorf("requests %+v", r)
	}
	if d := k.Deliveries; d[0].Kind != "file.created" || d[1].Kind != "file.deleted" || d[1].FileID != id || d[1].Status != 200 || d[1].WebhookID == "" ||
		!strings.Contains(string(d[1].Body), d[1].WebhookID) {
		t.Errorf("deliveries %+v", d)
	}
	call(t, k, "POST", "/_emulator/reset", "")
	if err := k.Collect(t.Context()); !errors.Is(err, collect.ErrForgotten) {
		t.Errorf("a log that began anew: %v", err)
	}
}
