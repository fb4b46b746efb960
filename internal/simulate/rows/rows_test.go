package rows_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/rows"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv/conform"
)

var _ service.Rows = (*rows.Door)(nil)

func TestConforms(t *testing.T) {
	conform.Rows(t, conform.Databases{
		New: func(t testing.TB) conform.Database { return &database{TB: t, Database: rows.New(chance.Seeded(1))} },
		Run: func(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) },
	})
}

// database is one, and a person who has SQL.
type database struct {
	testing.TB
	*rows.Database
}

func (d *database) Open(c store.Config) service.Rows {
	return rows.Open(d.Database, rows.Config{Config: c})
}

func (d *database) Insert(fileID, user string) {
	d.Helper()
	if err := d.InsertRow(rows.Row{FileID: fileID, FileURL: "https://app.example/" + fileID, UserID: user}); err != nil {
		d.Fatal(err)
	}
}

func (d *database) SetUser(fileID, user string) {
	d.update(fileID, func(r *rows.Row) { r.UserID = user })
}

func (d *database) SetName(fileID, name string) {
	d.update(fileID, func(r *rows.Row) { r.FileName = &name })
}

func (d *database) update(fileID string, change func(*rows.Row)) {
	d.Helper()
	if !d.UpdateRow(fileID, change) {
		d.Fatalf("there is no row of %s", fileID)
	}
}

func (d *database) Delete(fileID string) {
	d.Helper()
	if !d.DeleteRow(fileID) {
		d.Fatalf("there is no row of %s", fileID)
	}
}

func (d *database) Rows() map[string]string {
	out := map[string]string{}
	for _, r := range d.Dump().Rows {
		name := ""
		if r.FileName != nil {
			name = *r.FileName
		}
		out[r.FileID] = r.UserID + " " + name
	}
	return out
}

// Pass lets virtual time go by.
func (d *database) Pass(of time.Duration) { <-time.After(of) }
