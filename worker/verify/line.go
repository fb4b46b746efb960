package verify

import "context"

// The line before the budget is first come, first served. One Look of many files
// whose calls hang would fill it and keep everybody else waiting, so that only some
// calls of one Look may stand in it at once; what has left the line is bounded by
// Parallel alone.

type lineKey struct{}

// inLine returns a context whose calls wait for the budget at most n at a time.
func inLine(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, lineKey{}, make(chan struct{}, n))
}

// standInLine returns when this call may wait for the budget, with what it has to call
// when it has left the line.
func standInLine(ctx context.Context) (leave func(), err error) {
	line, bounded := ctx.Value(lineKey{}).(chan struct{})
	if !bounded {
		return func() {}, nil
	}
	select {
	case line <- struct{}{}:
		return func() { <-line }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
