package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// oracle answers look-ups by id from a list, in the order they come.
type oracle struct {
	Library
	answers []any // file.Answer or error
	asked   []string
}

func (o *oracle) Details(_ context.Context, id string) (file.Answer, error) {
	o.asked = append(o.asked, id)
	switch a := o.answers[len(o.asked)-1].(type) {
	case error:
		return file.Answer{}, a
	case time.Time:
		return file.Answer{Status: 200, Snapshots: []file.Snapshot{{ID: id, CreatedAt: a}}}, nil
	default:
		return a.(file.Answer), nil
	}
}

func TestAccountRecognised(t *testing.T) {
	made := time.Date(2026, 3, 4, 5, 6, 7, 891_000_000, time.UTC)
	gone, refused := &file.Fault{Kind: file.NotFound, Status: 404}, &file.Fault{Kind: file.Unauthorized, Status: 401}
	forbidden, away := &file.Fault{Kind: file.Forbidden, Status: 403}, &file.Fault{Kind: file.Unavailable, Status: 503}
	odd, invalid := &file.Fault{Kind: file.BadRequest, Status: 400}, &file.Fault{Kind: file.InvalidID, Status: 400}
	for name, c := range map[string]struct {
		answers   []any
		unknown   bool   // when the files were made
		asked     int    // want
		why       string // want; empty: confirmed
		transient bool
	}{
		"NobodyToAsk":             {},
		"TheFirstAnswers":         {answers: []any{made}, asked: 1},
		"TheLastOfFiveAnswers":    {answers: []any{gone, gone, gone, invalid, made}, asked: 5},
		"AgeUnknown":              {answers: []any{made.Add(time.Hour)}, unknown: true, asked: 1},
		"AllAbsent":               {answers: []any{gone, gone, gone, gone, gone}, asked: 5, why: "of 5 known files none answered as it should; 5 are not there"},
		"OneAndAbsent":            {answers: []any{gone}, asked: 1, why: "1 are not there"},
		"MadeAtAnotherTime":       {answers: []any{made.Add(time.Second), made.Add(-time.Hour)}, asked: 2, why: "2 were made at another time"},
		"AnotherFileAnswers":      {answers: []any{file.Answer{Snapshots: []file.Snapshot{{ID: "other", CreatedAt: made}}}}, asked: 1, why: "another time"},
		"NoFileAnswers":           {answers: []any{file.Answer{}}, asked: 1, why: "another time"},
		"KeyRefused":              {answers: []any{refused, made}, asked: 1, why: "ImageKit refuses the private key"},
		"KeyRestricted":           {answers: []any{gone, forbidden, made}, asked: 2, why: "ImageKit refuses the private key"},
		"AwayForAll":              {answers: []any{away, away}, asked: 2, transient: true},
		"AwayForOneAndRestAbsent": {answers: []any{gone, away, gone}, asked: 3, transient: true},
		"AwayForOneAndOneAnswers": {answers: []any{away, gone, made}, asked: 3},
		"RefusedAfterAway":        {answers: []any{away, refused}, asked: 2, why: "refuses the private key"},
		"AnswersThatSayNothing":   {answers: []any{odd, gone}, asked: 2, why: "1 are not there; 1 gave an answer that says nothing"},
		"MoreKnownThanAreAsked":   {answers: []any{gone, gone, gone, gone, gone, made}, asked: 5, why: "of 5"},
	} {
		t.Run(name, func(t *testing.T) {
			o := &oracle{answers: c.answers}
			var known []run.KnownFile
			for i := range c.answers {
				k := run.KnownFile{FileID: fmt.Sprint("f", i), CreatedAt: made}
				if c.unknown {
					k.CreatedAt = time.Time{}
				}
				known = append(known, k)
			}
			got, err := recognise(t.Context(), o, known)
			if (err != nil) != c.transient || len(o.asked) != c.asked {
				t.Fatalf("%v after %d questions", err, len(o.asked))
			}
			if err != nil {
				return
			}
			if (c.why == "") != (got.Why == "") || !strings.Contains(got.Why, c.why) || got.Asked != c.asked {
				t.Errorf("%+v, want %q", got, c.why)
			}
			if (got.Refused != nil) != strings.Contains(c.why, "refuses") {
				t.Errorf("refused %v", got.Refused)
			}
			if (got.Answered > 0) != (got.Why == "" && c.asked > 0) {
				t.Errorf("answered %d: %q", got.Answered, got.Why)
			}
		})
	}
	t.Run("AnInventedIDIsNotAsked", func(t *testing.T) {
		o := &oracle{}
		got, err := recognise(t.Context(), o, []run.KnownFile{{FileID: "../x"}})
		if err != nil || len(o.asked) > 0 || got.Why == "" {
			t.Errorf("%+v, %v, asked %v", got, err, o.asked)
		}
	})
	t.Run("AnErrorThatIsNoFault", func(t *testing.T) {
		o := &oracle{answers: []any{errors.New("odd")}}
		if _, err := recognise(t.Context(), o, []run.KnownFile{{FileID: "f"}}); err == nil {
			t.Error("no error")
		}
	})
}
