package main

import (
	"bytes"
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

// sql STATEMENT… runs statements on DATABASE_URL, as anybody may who has the table. The
// last one's rows are stdout, one a line.
func sql(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: sql STATEMENT…")
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	defer conn.Close(ctx)
	var out strings.Builder
	for _, statement := range args {
		out.Reset()
		rows, err := conn.Query(ctx, statement, pgx.QueryExecModeSimpleProtocol) // values come as text
		ts.Check(err)
		for rows.Next() {
			out.Write(append(bytes.Join(rows.RawValues(), []byte(" ")), '\n'))
		}
		ts.Check(rows.Err())
	}
	_, _ = ts.Stdout().Write([]byte(out.String()))
}
