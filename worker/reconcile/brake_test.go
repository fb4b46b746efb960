package reconcile

import (
	"strings"
	"testing"
)

func TestI8Brakes(t *testing.T) {
	whole := func(listed, rows, candidates, today int64) braking {
		return braking{Listed: listed, Rows: rows, Whole: true, Candidates: candidates, Today: today}
	}
	last := func(b braking, listed int64) braking { b.LastListed = listed; return b }
	for name, c := range map[string]struct {
		b    braking
		want string // in the one sentence; empty: none
	}{
		"NothingAtAll":               {whole(0, 0, 0, 0), ""},
		"Same":                       {whole(1000, 1000, 0, 0), ""},
		"EmptyListing":               {whole(0, 3, 0, 0), "the listing is empty, and 3 rows exist"},
		"EmptyTable":                 {whole(1000, 0, 0, 0), ""},
		"Incomplete":                 {braking{Listed: 1000, Rows: 1000, Broken: "it broke off"}, "incomplete: it broke off"},
		"Refused":                    {braking{Listed: 1000, Rows: 1000, Whole: true, Refused: true}, "refused the private key"},
		"TenOfFew":                   {whole(5, 15, 10, 0), ""},
		"ElevenOfFew":                {whole(209, 220, 11, 0), "11 of 220 rows are candidates"},
		"TenOfAThousand":             {whole(990, 1000, 10, 0), ""},
		"ElevenOfAThousand":          {whole(989, 1000, 11, 0), "more than 1 %"},
		"ElevenOfElevenHundred":      {whole(1089, 1100, 11, 0), ""},
		"OnePercentExactly":          {whole(99_000, 100_000, 1000, 0), ""},
		"OneMoreThanOnePercent":      {whole(98_999, 100_000, 1001, 0), "1001 of 100000 rows"},
		"OnePercentAndAHalf":         {whole(149, 150, 1, 0), ""},
		"TodayTenWithTheseOfFew":     {whole(100, 104, 4, 6), ""},
		"TodayElevenWithTheseOfFew":  {whole(100, 105, 5, 6), "11 of 105 rows were candidates for deletion within a day"},
		"TodayFivePercentExactly":    {whole(990, 1000, 10, 40), ""},
		"TodayOneMoreThanFive":       {whole(990, 1000, 10, 41), "more than 5 %"},
		"TodayMuchButNoneOfThese":    {whole(1000, 1000, 0, 500), ""},
		"NinetyPercentOfTheLast":     {last(whole(900, 900, 0, 0), 1000), ""},
		"LessThanNinetyOfTheLast":    {last(whole(899, 899, 0, 0), 1000), "fewer than 90 % of the 1000"},
		"NinetyPercentOfElevenFiles": {last(whole(9, 9, 0, 0), 11), "fewer than 90 %"},
		"MoreThanTheLast":            {last(whole(2000, 1000, 0, 0), 1000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := brakes(c.b)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("latched: %q", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	t.Run("EverythingIsSaid", func(t *testing.T) {
		got := brakes(braking{Rows: 1000, LastListed: 1000, Candidates: 1000, Refused: true, Broken: "x"})
		if len(got) != 6 {
			t.Errorf("%d: %q", len(got), got)
		}
	})
}
