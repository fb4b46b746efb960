package check

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
)

// A ticket of user_123, sealed by an early trueup with this secret for this account.
const (
	keptSecret  = "new-secret-new-secret-new-secret-32"
	keptAccount = "demo_id"
	keptTicket  = "tu1.7003a0bc.q19PQGTZPwd1y3C6zaEto_ZNhU-syp7F2KcyrXGwLaiGLLTF3mLhhO4a91ttEZQG"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

func p[T any](v T) *T { return &v }

// details is a file as ImageKit tells of it.
func details(id, name string, created, updated time.Time, version int, tags ...string) json.RawMessage {
	stamp := func(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }
	vid := id
	if version > 1 {
		vid = fmt.Sprintf("%s-v%d", id, version)
	}
	b, _ := json.Marshal(map[string]any{
		"type": "file", "fileId": id, "name": name, "filePath": "/" + name, "url": "https://ik.example/demo_id/" + name + "?updatedAt=1",
		"thumbnail": "https://ik.example/demo_id/" + name + "?updatedAt=1&tr=n-ik_ml_thumbnail", "fileType": "image", "mime": "image/png",
		"size": 120, "width": 7, "height": 5, "tags": tags, "customMetadata": map[string]any{"alt": "x", "n": 1.50}, "isPrivateFile": false,
		"versionInfo": map[string]any{"id": vid, "name": fmt.Sprintf("Version %d", version)}, "createdAt": stamp(created), "updatedAt": stamp(updated),
	})
	return b
}

// rowOf is the row that an honest trueup has of a file.
func rowOf(id, name, user string, created, updated time.Time, version int, tags ...string) Row {
	vid := id
	if version > 1 {
		vid = fmt.Sprintf("%s-v%d", id, version)
	}
	return Row{
		FileID: id, UserID: user, FileURL: "https://ik.example/demo_id/" + name, UploadTimestamp: p(created), FileName: p(name), FilePath: p("/" + name),
		FileType: p("image"), MIME: p("image/png"), SizeBytes: p[int64](120), Width: p[int64](7), Height: p[int64](5),
		ThumbnailURL: p("https://ik.example/demo_id/" + name + "?tr=n-ik_ml_thumbnail"), Tags: tags, CustomMetadata: json.RawMessage(`{"n": 1.5, "alt": "x"}`),
		VersionID: p(vid), IsPrivate: p(false), RemoteUpdatedAt: p(updated), SyncedAt: p(updated.Add(1500 * time.Millisecond)), Xmin: "7" + id,
	}
}

func ulid(n int) string { return fmt.Sprintf("01JNXXXXXXXXXXXXXXXXX%05d", n) }

func reportID(n int) string { return "rp_" + ulid(n) + "_0123456789abcdefABCDEF" }

// encode writes an envelope by hand.
func encode(id string, heads, bodies []string) []byte {
	out := []byte("tru\x01")
	piece := func(s string) { out = append(binary.AppendUvarint(out, uint64(len(s))), s...) }
	piece(id)
	out = binary.AppendUvarint(out, uint64(len(heads)))
	for i := range heads {
		piece(heads[i])
		piece(bodies[i])
	}
	return out
}

func line(n int, source, kind, file, user string, accepted, ended time.Time, end, reason string) Line {
	verdict := "present"
	if end == "dead" {
		verdict = "undecided"
	}
	return Line{ID: ulid(n), At: ended, FileID: file, Source: source, Origin: source, Kind: kind, User: user, AcceptedAt: p(accepted),
		Verdict: verdict, Outcome: "applied", Reason: reason, EndKind: end}
}

func look(file string, when time.Time, status int) Request {
	body := "object"
	return Request{At: when, Took: time.Millisecond, Method: "GET", Path: "/v1/files/" + file + "/details", Endpoint: "details", Status: status, Body: body,
		RequestID: fmt.Sprintf("r-%s-%d", file, when.UnixMilli()), Who: "trueup/test"}
}

func webhook(file, kind, id string, when time.Time) Ack {
	return Ack{Door: Webhook, SentAt: when, AnsweredAt: when.Add(time.Millisecond), Status: 200, Genuine: true, FileID: file, Kind: kind, WebhookID: id,
		Body: []byte(`{"type":"` + kind + `","id":"` + id + `","data":{"fileId":"` + file + `"}}`)}
}

func report(n int, file, user string, when time.Time) Ack {
	return Ack{Door: Report, SentAt: when, AnsweredAt: when.Add(time.Millisecond), Status: 202, Genuine: true, FileID: file, User: user, ReportID: reportID(n),
		Body: []byte(`{"fileId":"` + file + `","url":"https://PLANTED"}`)}
}

// honest is the whole evidence of a small campaign in which everything went well:
//
//	proven     carried user_123's ticket from the beginning, and was overwritten
//	claimed    was reported by late at 14 s and by early at 12 s
//	told       was deleted, and a webhook said so
//	untold     was deleted and nobody said so: two 404s, 100 s apart
//	poisoned   can not be looked up: a dead letter
//	forged     is a file that only a forger names
func honest() *Evidence {
	s := Settings{AbsentConfirm: time.Minute, NotFoundGrace: 15 * time.Minute, ClaimWindow: time.Hour, Keys: []string{keptSecret}, Account: keptAccount,
		Markers: []string{"PLANTED"}, Poison: []string{"poisoned"}, PoisonDelay: time.Minute, MaxWait: 15 * time.Minute}
	poisoned := details("poisoned", "p.png", at(5), at(5), 1)
	e := &Evidence{
		Settings: s,
		Truth: map[string]json.RawMessage{
			"proven":  details("proven", "a.png", at(0), at(40), 2, "cat", keptTicket),
			"claimed": details("claimed", "b.png", at(10), at(10), 1),
		},
		History: []Change{
			{at(0), "proven", Uploaded, details("proven", "a.png", at(0), at(0), 1, "cat", keptTicket)},
			{at(2), "told", Uploaded, details("told", "t.png", at(2), at(2), 1)},
			{at(3), "untold", Uploaded, details("untold", "u.png", at(3), at(3), 1)},
			{at(5), "poisoned", Uploaded, poisoned},
			{at(10), "claimed", Uploaded, details("claimed", "b.png", at(10), at(10), 1)},
			{at(40), "proven", Overwritten, details("proven", "a.png", at(0), at(40), 2, "cat", keptTicket)},
			{at(50), "told", Deleted, nil},
			{at(51), "untold", Deleted, nil},
			{at(52), "poisoned", Deleted, nil},
		},
		Requests: []Request{
			look("proven", at(1), 200), look("told", at(2.5), 200), look("untold", at(3.5), 200), look("claimed", at(11), 200), look("claimed", at(14.5), 200),
			{At: at(20), Took: time.Millisecond, Method: "GET", Path: "/v1/files/poisoned/details", Endpoint: "details", Status: 429, Reset: 2 * time.Second, Body: "object", Who: "trueup/test", RequestID: "limited"},
			look("proven", at(41), 200), look("told", at(51), 404), look("untold", at(100), 404), look("claimed", at(199), 200), look("untold", at(200), 404),
		},
		Lies: []Lie{}, Hands: []Hand{}, Stream: []Message{},
		Acks: []Ack{
			webhook("proven", "file.created", "w1", at(0.5)), webhook("told", "file.created", "w2", at(2.1)), webhook("untold", "file.created", "w3", at(3.1)),
			webhook("poisoned", "file.created", "w4", at(5.1)), report(5, "claimed", "early", at(12)), report(6, "claimed", "late", at(14)),
			webhook("proven", "file-version.created", "w7", at(40.5)), webhook("told", "file.deleted", "w8", at(50.5)),
			{Door: Report, SentAt: at(60), AnsweredAt: at(60), Status: 401, FileID: "forged", Body: []byte(`{"fileId":"forged"}`)},
			{Door: Webhook, SentAt: at(61), Status: 0, Genuine: true, FileID: "proven", Kind: "file.updated", WebhookID: "w9"},
			{Door: Webhook, SentAt: at(62), AnsweredAt: at(62), Status: 503, Genuine: true, FileID: "proven", Kind: "file.updated", WebhookID: "w9"},
		},
		Dump: Dump{
			At: at(1000),
			Rows: []Row{
				rowOf("proven", "a.png", "user_123", at(0), at(40), 2, "cat"),
				rowOf("claimed", "b.png", "early", at(10), at(10), 1),
			},
			States: []State{
				{FileID: "proven", Seen: 9, High: p(at(40)), Owner: "user_123", OwnerKind: "proven", Ticket: "x"},
				{FileID: "claimed", Seen: 8, High: p(at(10)), Owner: "early", OwnerKind: "claimed", OwnerAt: p(at(12)), Flags: []string{"claim_refused"}},
				{FileID: "told", Seen: 11, High: p(at(2)), GoneAt: p(at(51.5)), GoneWhy: "announced"},
				{FileID: "untold", Seen: 13, High: p(at(3)), GoneAt: p(at(200.5)), GoneWhy: "confirmed", CountedAt: p(at(100.5))},
			},
			Ledger: []Line{
				hooked(line(1, "webhook", "file.created", "proven", "", at(0.5), at(1.5), "done", "added"), "w1"),
				hooked(line(2, "webhook", "file.created", "told", "", at(2.1), at(3), "done", "added"), "w2"),
				hooked(line(3, "webhook", "file.created", "untold", "", at(3.1), at(4), "done", "added"), "w3"),
				hooked(line(4, "webhook", "file.created", "poisoned", "", at(5.1), at(30), "dead", "gave_up"), "w4"),
				line(5, "client", "report", "claimed", "early", at(12), at(15), "done", "owner"),
				line(6, "client", "report", "claimed", "late", at(14), at(900), "rejected", "claim_refused"),
				hooked(line(7, "webhook", "file-version.created", "proven", "", at(40.5), at(41.5), "done", "raised"), "w7"),
				hooked(line(8, "webhook", "file.deleted", "told", "", at(50.5), at(51.5), "done", "announced"), "w8"),
				{ID: "s1", At: at(15), FileID: "claimed", Source: "trueup", Kind: "security", Reason: "claim_refused"},
				{ID: "s2", At: at(200.5), FileID: "untold", Source: "trueup", Kind: "write", Outcome: "tombstoned", Reason: "confirmed"},
			},
			Retries: []Retry{},
			DeadLetters: []DeadLetter{{ID: "d1", EventID: ulid(4), FileID: "poisoned", Source: "webhook", Origin: "webhook", Kind: "file.created",
				AcceptedAt: at(5.1), WebhookID: "w4", Class: "imagekit", Reason: "gave_up", State: "dead", Body: webhook("poisoned", "file.created", "w4", at(5.1)).Body,
				Attempts: []Attempt{{At: at(20), Class: "imagekit", Reason: "limited", Status: 429, Version: "test"}}, History: json.RawMessage("[]"), CreatedAt: at(30)}},
			Runs:     []Reconciliation{{ID: "run1", Kind: "run", State: "complete", StartedAt: at(90), Listed: 2, Rows: 4, Whole: true, Candidates: 1}},
			Findings: []Finding{{RunID: "run1", FileID: "untold", Kind: "orphaned", Status: "repaired", Reason: "confirmed"}},
			Audit:    []Act{}, Fuse: &Fuse{}, Expired: []Expired{},
		},
	}
	e.Ledger[5].Tries, e.Ledger[5].Verdict = 9, "refused"
	e.Ledger[7].Outcome = "tombstoned"
	e.Series = []Dump{earlier(e, at(16)), earlier(e, at(60))}
	return e
}

func hooked(n Line, id string) Line {
	n.WebhookID = id
	return n
}

// earlier is the database of the honest campaign as it was.
func earlier(e *Evidence, when time.Time) Dump {
	d := e.Dump
	d.At = when
	d.Rows = []Row{rowOf("proven", "a.png", "user_123", at(0), at(0), 1, "cat"), rowOf("claimed", "b.png", "early", at(10), at(10), 1),
		rowOf("untold", "u.png", "", at(3), at(3), 1)}
	d.States = []State{{FileID: "proven", Seen: 5, High: p(at(0))}, {FileID: "claimed", Seen: 8, High: p(at(10))}, {FileID: "untold", Seen: 4, High: p(at(3))},
		{FileID: "told", Seen: 3, High: p(at(2))}}
	if when.Before(at(50)) {
		d.Rows = append(d.Rows, rowOf("told", "t.png", "", at(2), at(2), 1))
		d.DeadLetters = []DeadLetter{}
	} else {
		d.Rows[0] = rowOf("proven", "a.png", "user_123", at(0), at(40), 2, "cat")
		d.States[0] = State{FileID: "proven", Seen: 9, High: p(at(40))}
		d.States[3] = State{FileID: "told", Seen: 11, High: p(at(2)), GoneAt: p(at(51.5)), GoneWhy: "announced"}
	}
	return d
}

func TestAnHonestCampaignPasses(t *testing.T) {
	for _, phase := range []Phase{Safety, Settled} {
		v := Run(honest(), phase)
		for _, w := range v.Violations {
			t.Errorf("%s: %s", phase, w)
		}
		for _, name := range []string{"I1.stored", "I1.acknowledged", "I5.states", "I7.tombstones", "I8.unsigned removals", "I9.bodies", "I11.rows", "I13.resets", "I14.files named by forgers only", "I16.ends"} {
			if v.Counts[name] == 0 {
				t.Errorf("%s: %s looked at nothing: %v", phase, name, v.Counts)
			}
		}
	}
	v := Run(honest(), Settled)
	if c := v.Counts; c["I1.stored"] != 8 || c["I1.done"] != 6 || c["I1.rejected"] != 1 || c["I1.dead"] != 1 || c["I1.pending"] != 0 {
		t.Errorf("sums: %v", c)
	}
}

// doctored is honest evidence of a campaign in which one thing went wrong.
type doctored struct {
	name   string
	breaks Invariant
	phase  Phase
	doctor func(*Evidence)
}

func (d doctored) try(t *testing.T) {
	t.Run(string(d.breaks)+"/"+d.name, func(t *testing.T) {
		e := honest()
		d.doctor(e)
		phase := d.phase
		if phase == "" {
			phase = Settled
		}
		v := Run(e, phase)
		if !slices.ContainsFunc(v.Violations, func(w Violation) bool { return w.Invariant == d.breaks }) {
			t.Errorf("%s did not notice; the verdict: %v", d.breaks, v.Violations)
		}
		for _, w := range v.Violations {
			t.Log(w)
		}
	})
}
