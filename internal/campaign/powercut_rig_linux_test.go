package campaign

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/localpg"
)

// TestPowerCutForgetsWhatWasNotFlushed: the rig itself, without trueup. After a cut what
// was fsynced is there and what was only written is not; a kill alone would keep both.
func TestPowerCutForgetsWhatWasNotFlushed(t *testing.T) {
	dir := cutDir(t)
	d := &disk{image: filepath.Join(dir, "disk.img"), mount: filepath.Join(dir, "disk")}
	if err := errors.Join(formatDisk(t.Context(), d.image), d.attach()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.detach(); err != nil {
			t.Error(err)
		}
	}()
	want := bytes.Repeat([]byte("acknowledged "), 10_000)
	for _, name := range []string{"flushed", "written"} {
		f, err := os.Create(filepath.Join(d.mount, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(want)
		if name == "flushed" {
			err = errors.Join(err, f.Sync())
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (room{disks: []*disk{d}}).cut(func() {}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(d.mount, "flushed")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was flushed is not there: %d bytes, %v", len(got), err)
	}
	if got, err := os.ReadFile(filepath.Join(d.mount, "written")); err == nil && bytes.Equal(got, want) {
		t.Error("what was never flushed is there: this is not a power cut")
	}
}

// TestPowerCutOfDevsDatabase: the PostgreSQL that dev starts comes up again after a power
// cut right after it was made, and knows its own password; found by cutting dev's power.
func TestPowerCutOfDevsDatabase(t *testing.T) {
	dir := cutDir(t)
	d := &disk{image: filepath.Join(dir, "disk.img"), mount: filepath.Join(dir, "disk")}
	if err := errors.Join(formatDisk(t.Context(), d.image), d.attach()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.detach(); err != nil {
			t.Error(err)
		}
	}()
	programs, err := obtainPostgres()
	if err != nil {
		t.Fatal(err)
	}
	cfg := localpg.Config{Dir: filepath.Join(d.mount, "postgres"), Programs: programs, KeepDown: true}
	url := ""
	for range 2 {
		server, err := localpg.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if url != "" && server.URL(localpg.Superuser) != url {
			t.Errorf("the address or the password changed")
		}
		url = server.URL(localpg.Superuser)
		all, err := freezeFamilies([]int{server.PID()})
		if err == nil {
			_, err = photograph([]*disk{d}, ".after")
		}
		err = errors.Join(err, endAll(all))
		<-server.Done()
		if err := errors.Join(err, server.Stop(), room{disks: []*disk{d}}.swap()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutComparison: what each kind of loss looks like to the comparison.
func TestPowerCutComparison(t *testing.T) {
	f := &cutFile{id: "f1", changes: 1, told: 1, reported: true}
	s := &sender{user: "ann", files: []*cutFile{f}, acks: []check.Ack{
		{Door: check.Report, Status: 202, FileID: "f1", ReportID: "rp_E1_seal"},
		{Door: check.Webhook, Status: 503, FileID: "f1", WebhookID: "w1"},
		{Door: check.Webhook, Status: 200, FileID: "f1", WebhookID: "w1"},
		{Door: check.Report, Status: 0, FileID: "f1"},
	}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	truth := map[string]json.RawMessage{"f1": json.RawMessage(`{"updatedAt":"2026-01-02T03:04:05Z","tags":["v1"]}`)}
	good := check.Dump{
		Rows:    []check.Row{{FileID: "f1", RemoteUpdatedAt: &at, Tags: []string{"v1"}, UserID: "ann"}},
		Ledger:  []check.Line{{ID: "E1", EndKind: "done"}, {ID: "E2", EndKind: "done", WebhookID: "w1"}, {ID: "note"}},
		Retries: []check.Retry{{EventID: "E3", WebhookID: "w1"}},
	}
	for _, c := range []struct {
		name              string
		damage            func(d *check.Dump)
		lost, twice, rows int
	}{
		{"Good", func(*check.Dump) {}, 0, 0, 0},
		{"OneWaitsForItsRetry", func(d *check.Dump) {
			d.Ledger, d.Retries = d.Ledger[1:], append(d.Retries[:0:0], check.Retry{EventID: "E1"})
		}, 0, 0, 0},
		{"AReportIsLost", func(d *check.Dump) { d.Ledger = d.Ledger[1:] }, 1, 0, 0},
		{"AWebhookIsLost", func(d *check.Dump) { d.Ledger, d.Retries = d.Ledger[:1], nil }, 1, 0, 0},
		{"OnlyANoteTellsOfIt", func(d *check.Dump) { d.Ledger = []check.Line{{ID: "E1"}, d.Ledger[1]} }, 1, 0, 0},
		{"AReportEndsTwice", func(d *check.Dump) { d.Retries = append(d.Retries[:1:1], check.Retry{EventID: "E1"}) }, 0, 1, 0},
		{"AWebhookEndsMoreOftenThanItWasSent", func(d *check.Dump) {
			d.Retries = append(d.Retries[:1:1], check.Retry{EventID: "E4", WebhookID: "w1"})
		}, 0, 1, 0},
		{"NoRow", func(d *check.Dump) { d.Rows = nil }, 0, 0, 1},
		{"AnOldRow", func(d *check.Dump) { d.Rows[0].Tags = []string{"v0"} }, 0, 0, 1},
		{"NobodysRow", func(d *check.Dump) { d.Rows[0].UserID = "" }, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := good
			d.Rows = append([]check.Row{}, good.Rows...)
			c.damage(&d)
			lost, twice := gather([]*sender{s}).compare(ends(d))
			wrong, judged := staleRows([]*sender{s}, truth, d)
			if len(lost) != c.lost || len(twice) != c.twice || len(wrong) != c.rows || judged != 1 {
				t.Errorf("lost %v, twice %v, wrong %v, %d judged", lost, twice, wrong, judged)
			}
		})
	}
	t.Run("WhatNobodyWasToldIsNotJudged", func(t *testing.T) {
		f.told = 0
		if wrong, judged := staleRows([]*sender{s}, truth, check.Dump{}); len(wrong) != 0 || judged != 0 {
			t.Errorf("%v, %d judged", wrong, judged)
		}
	})
}

// TestPowerCutPlansReachEveryCell: the seeds of a campaign of 50 reach all of them.
func TestPowerCutPlansReachEveryCell(t *testing.T) {
	for _, replicas := range []int{1, 3} {
		y := newTally(t, "plans", 50)
		for seed := range uint64(50) {
			y.add(planCut(seed+1, replicas, ""), cutResult{})
		}
		for _, cell := range cutCells(replicas) {
			if y.Cells[cell] == 0 {
				t.Errorf("with %d replicas no plan reaches %s", replicas, cell)
			}
		}
	}
}
