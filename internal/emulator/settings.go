package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as "1.5s"; days ("365d") are understood too.
type Duration time.Duration

// MarshalJSON writes it as Go does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON refuses numbers, so that nobody has to guess a unit, and negatives.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf(`a duration is text like "1.5s", not %s`, b)
	}
	v, err := parseDuration(s)
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n >= 0 && n < 100_000) {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%q is not a duration of zero or more", s)
	}
	return v, nil
}

// RateLimit allows PerSecond calls a second to each endpoint after a burst; zero
// PerSecond is unlimited.
type RateLimit struct {
	PerSecond float64 `json:"perSecond"`
	Burst     int     `json:"burst"`
}

// WebhookSettings say what is sent and how badly the way there behaves.
type WebhookSettings struct {
	Enabled            bool       `json:"enabled"`
	URL                string     `json:"url"`
	DropRate           float64    `json:"dropRate"`
	DuplicateRate      float64    `json:"duplicateRate"`
	Reorder            bool       `json:"reorder"`
	Delay              Duration   `json:"delay"`
	ReorderWithin      Duration   `json:"reorderWithin"`
	RetrySchedule      []Duration `json:"retrySchedule"`
	Timeout            Duration   `json:"timeout"`
	SignatureHeaders   string     `json:"signatureHeaders"`
	SpecKey            bool       `json:"specKey"`
	OverwriteAlso      bool       `json:"overwriteAlsoUpdates"`
	VersionEvents      bool       `json:"versionEvents"`
	VersionEventType   string     `json:"versionEventType"`
	DeleteTellsOfParts bool       `json:"deleteEmitsVersionEvents"`
	BulkEvents         bool       `json:"bulkEvents"`
}

// Settings are the knobs of GET and PATCH /_emulator/settings. The package comment
// explains each.
type Settings struct {
	Webhooks        WebhookSettings `json:"webhooks"`
	ListLag         Duration        `json:"listLag"`
	VisibilityDelay Duration        `json:"visibilityDelay"`
	RateLimit       RateLimit       `json:"rateLimit"`
	IDSearch        bool            `json:"idSearch"`
	Seed            uint64          `json:"seed"`

	WriteRateLimit    RateLimit `json:"writeRateLimit"`
	RateHeaders       bool      `json:"rateHeaders"`
	MoveChangesID     bool      `json:"moveChangesId"`
	EmptyBodyAs200    bool      `json:"emptyBodyAs200"`
	SkipCap           int       `json:"skipCap"`
	IDSearchMax       int       `json:"idSearchMax"`
	URLMax            int       `json:"urlMax"`
	SearchDefaultType string    `json:"searchDefaultType"`
	RegressOnRestore  bool      `json:"regressOnRestore"`
	AnyCustomMetadata bool      `json:"anyCustomMetadata"`
	MaxFileSize       int64     `json:"maxFileSize"`
	MaxVideoSize      int64     `json:"maxVideoSize"`
}

func (e *Emulator) defaults() *Settings {
	retries := make([]Duration, 0, 28)
	for _, d := range []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute} {
		retries = append(retries, Duration(d))
	}
	for range 23 {
		retries = append(retries, Duration(time.Hour))
	}
	return &Settings{
		Webhooks: WebhookSettings{
			Enabled: true, URL: e.WebhookURL, ReorderWithin: Duration(time.Second),
			RetrySchedule: retries, Timeout: Duration(30 * time.Second),
			SignatureHeaders: "both", VersionEvents: true, VersionEventType: "file", BulkEvents: true,
		},
		RateLimit:      RateLimit{PerSecond: 40, Burst: 100},
		WriteRateLimit: RateLimit{PerSecond: 5, Burst: 20},
		IDSearch:       true, RateHeaders: true, IDSearchMax: 500, URLMax: 8 << 10,
		SearchDefaultType: "all", MaxFileSize: 25 << 20, MaxVideoSize: 100 << 20,
	}
}

// settingsFrom lays a patch over the defaults. Only what was patched is kept on
// disk, so that a default that moves with the command line (the webhook URL) does.
func (e *Emulator) settingsFrom(patch map[string]any) (*Settings, error) {
	b, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	s := e.defaults()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return nil, err
	}
	return s, s.check()
}

func (s *Settings) check() error {
	w := &s.Webhooks
	share := func(name string, v float64) error {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("%s is a share between 0 and 1, not %v", name, v)
		}
		return nil
	}
	limit := func(name string, l RateLimit) error {
		if !(l.PerSecond >= 0) || l.Burst < 0 || (l.PerSecond > 0 && l.Burst == 0) {
			return fmt.Errorf("%s needs perSecond of zero or more and a burst of at least 1", name)
		}
		return nil
	}
	oneOf := func(name, v string, of ...string) error {
		if !slices.Contains(of, v) {
			return fmt.Errorf("%s is one of %s, not %q", name, strings.Join(of, ", "), v)
		}
		return nil
	}
	var sizes error
	if s.SkipCap < 0 || s.IDSearchMax < 0 || s.URLMax < 0 || s.MaxFileSize < 0 || s.MaxVideoSize < 0 {
		sizes = errors.New("skipCap, idSearchMax, urlMax, maxFileSize and maxVideoSize are zero or more")
	}
	return errors.Join(
		share("webhooks.dropRate", w.DropRate), share("webhooks.duplicateRate", w.DuplicateRate),
		limit("rateLimit", s.RateLimit), limit("writeRateLimit", s.WriteRateLimit),
		oneOf("webhooks.signatureHeaders", w.SignatureHeaders, "both", "standard", "legacy"),
		oneOf("webhooks.versionEventType", w.VersionEventType, "file", "file-version"),
		oneOf("searchDefaultType", s.SearchDefaultType, "all", "file"),
		sizes)
}

// merge lays patch over base, objects member by member; neither is changed.
func merge(base, patch map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range patch {
		inner, isObject := v.(map[string]any)
		old, wasObject := out[k].(map[string]any)
		if isObject && wasObject {
			v = merge(old, inner)
		}
		out[k] = v
	}
	return out
}

// patchSettings is PATCH /_emulator/settings: all of it or, if one field is unknown
// or out of range, nothing.
func (e *Emulator) patchSettings(body io.Reader) answer {
	dec := json.NewDecoder(body)
	dec.UseNumber()
	var patch map[string]any
	if err := dec.Decode(&patch); err != nil || patch == nil {
		return refuse(400, "Settings are a JSON object.")
	}
	return e.change(func() ([]change, answer) {
		merged := merge(e.lib.patch, patch)
		s, err := e.settingsFrom(merged)
		if err != nil {
			return nil, refuse(400, "Settings not changed: "+err.Error())
		}
		if _, reseed := patch["seed"]; reseed {
			e.dice.seed(s.Seed)
		}
		return []change{{Settings: merged}}, ok(s)
	})
}
