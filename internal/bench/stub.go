package bench

import (
	"context"
	"io"
)

func serveQueue(ctx context.Context, in io.Reader, out io.Writer) error { return nil }
func (s *stage) reconcile(ctx context.Context) error                    { return nil }
func (s *stage) latency(ctx context.Context) error                      { return nil }
func (s *stage) idle(ctx context.Context) error                         { return nil }
func (s *stage) growth(ctx context.Context) error                       { return nil }
func (s *stage) overload(ctx context.Context) error                     { return nil }
