package bench

import (
	"context"
	"fmt"

	"github.com/trueup/trueup/internal/bench/histogram"
)

// contender is one side of a comparison. slice measures it once, for a short time or a
// fixed amount of work.
type contender struct {
	name  string
	slice func(ctx context.Context, round int) (sample, error)
}

// sample is what one slice gave.
type sample struct {
	value   float64
	latency *histogram.Histogram // where the slice has one
}

// sides are the samples of each contender, round by round.
type sides [][]sample

func (s sides) values(contender int) []float64 {
	out := make([]float64, len(s[contender]))
	for i, one := range s[contender] {
		out[i] = one.value
	}
	return out
}

// quantiles of each round, in milliseconds.
func (s sides) quantiles(contender int, q float64) []float64 {
	out := make([]float64, len(s[contender]))
	for i, one := range s[contender] {
		out[i] = one.latency.Quantile(q).Seconds() * 1000
	}
	return out
}

// whole is the latencies of all rounds.
func (s sides) whole(contender int) *histogram.Histogram {
	var all histogram.Histogram
	for _, one := range s[contender] {
		all.Merge(one.latency)
	}
	return &all
}

// rounds measures the contenders turn by turn, as often as pairs were asked for, after
// one round that warms everything up and does not count. Every other round goes the
// other way round, so that nobody always comes after the same one.
func (s *stage) rounds(ctx context.Context, contenders ...contender) (sides, error) {
	out := make(sides, len(contenders))
	for round := range s.Pairs + 1 {
		for i := range contenders {
			if round%2 == 1 {
				i = len(contenders) - 1 - i
			}
			c := contenders[i]
			one, err := c.slice(ctx, round)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", c.name, round, err)
			}
			if round > 0 {
				out[i] = append(out[i], one)
				s.say("  %d/%d %s: %s", round, s.Pairs, c.name, number(one.value))
			}
		}
	}
	return out, nil
}
