package simulate

import (
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/simulate/rows"
)

// Acts of people with SQL on the application's table.

func (p *people) row(d draw) string {
	ids := p.w.database.FileIDs()
	if len(ids) == 0 {
		return ""
	}
	return ids[d.IntN(len(ids))]
}

func (p *people) deleteRow(d draw) {
	if id := p.row(d); id != "" && p.w.database.DeleteRow(id) {
		p.w.record.hand(check.Hand{FileID: id, Kind: check.HandDelete})
		p.w.trace.say("people", "DELETE %s", id)
		p.w.reached.Hit("people/deleted-row")
	}
}

// corruptions are what an UPDATE does to one column.
func corruptions(d draw) (string, func(*rows.Row)) {
	text, number, wide, moment, yes := "corrupted", int64(d.IntN(1000)), int32(d.IntN(1000)), time.Now().Add(-time.Duration(d.IntN(1000))*time.Hour).Truncate(time.Microsecond), d.chance(0.5)
	columns := []struct {
		name  string
		spoil func(*rows.Row)
	}{
		{"file_url", func(r *rows.Row) { r.FileURL = text }},
		{"user_id", func(r *rows.Row) { r.UserID = text }},
		{"upload_timestamp", func(r *rows.Row) { r.UploadTimestamp = &moment }},
		{"file_name", func(r *rows.Row) { r.FileName = nil }},
		{"file_path", func(r *rows.Row) { r.FilePath = &text }},
		{"file_type", func(r *rows.Row) { r.FileType = &text }},
		{"mime", func(r *rows.Row) { r.MIME = &text }},
		{"size_bytes", func(r *rows.Row) { r.SizeBytes = &number }},
		{"width", func(r *rows.Row) { r.Width = &wide }},
		{"height", func(r *rows.Row) { r.Height = &wide }},
		{"thumbnail_url", func(r *rows.Row) { r.ThumbnailURL = &text }},
		{"tags", func(r *rows.Row) { r.Tags = []string{text} }},
		{"custom_metadata", func(r *rows.Row) { r.CustomMetadata = []byte(`{"corrupted":true}`) }},
		{"version_id", func(r *rows.Row) { r.VersionID = &text }},
		{"is_private", func(r *rows.Row) { r.IsPrivate = &yes }},
		{"remote_updated_at", func(r *rows.Row) {
			future := time.Now().Add(24 * time.Hour).Truncate(time.Microsecond)
			r.RemoteUpdatedAt = &future
		}},
	}
	c := columns[d.IntN(len(columns))]
	return c.name, c.spoil
}

func (p *people) corruptRow(d draw) {
	id := p.row(d)
	if id == "" {
		return
	}
	column, spoil := corruptions(d)
	user := ""
	if p.w.database.UpdateRow(id, func(r *rows.Row) { spoil(r); user = r.UserID }) {
		if column != "user_id" {
			user = ""
		}
		p.w.record.hand(check.Hand{FileID: id, Kind: check.HandUpdate, User: user})
		p.w.trace.say("people", "UPDATE %s of %s", column, id)
		p.w.reached.Hit("people/corrupted-row")
	}
}

// insertRow puts a row of one's own: of a file that ImageKit has, or of nothing.
func (p *people) insertRow(d draw) {
	id := fmt.Sprintf("%024x", d.Uint64())
	if u := p.one(d); u != nil && d.chance(0.7) {
		id = u.id
	}
	user := one(d, "", p.user(d), p.user(d))
	r := rows.Row{FileID: id, FileURL: "https://app.example/" + id, UserID: user}
	if p.w.database.InsertRow(r) == nil {
		p.w.record.hand(check.Hand{FileID: id, Kind: check.HandInsert, User: user})
		p.w.trace.say("people", "INSERT %s for %q", id, user)
		p.w.reached.Hit("people/inserted-row")
	}
}

func (p *people) emptyTable(draw) {
	p.w.database.TruncateRows()
	p.w.record.hand(check.Hand{Kind: check.HandDelete})
	p.w.trace.say("people", "TRUNCATE")
	p.w.reached.Hit("people/truncated")
}
