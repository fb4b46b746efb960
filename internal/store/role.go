package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// planRole may read everything, and write runs and findings only.
const planRole = "trueup_plan"

// ForPlan is the same database for a run that may change nothing but itself: PostgreSQL
// refuses it everything else. Each of its transactions steps down to the role
// trueup_plan, for as long as the transaction lasts, which is all a pooler allows; before
// it does only the turn is checked, and fences are drawn without it.
//
// Where that role is not to be had, or would see less than this one does, plan is s
// itself and note says so in a sentence.
func (s *Store) ForPlan(ctx context.Context) (plan *Store, note string, err error) {
	plan = &Store{cfg: s.cfg, pool: s.pool, log: s.log, secrets: s.secrets, role: planRole}
	var may, hidden bool
	err = plan.tx(ctx, "step down to "+planRole, func(ctx context.Context, tx pgx.Tx) error {
		// Row security that does not bind this role might hide rows from the other.
		return tx.QueryRow(ctx, `SELECT has_table_privilege('trueup.runs', 'UPDATE') AND has_table_privilege('trueup.findings', 'INSERT')
				AND has_table_privilege('trueup.findings', 'UPDATE') AND has_table_privilege('trueup.file_state', 'SELECT')
				AND has_table_privilege('public.imagekit_files', 'SELECT'), row_security_active('public.imagekit_files')`).Scan(&may, &hidden)
	})
	const goesOn = "; the plan is made with the worker's own rights"
	switch why := cannotStepDown(err); {
	case why != "":
		return s, fmt.Sprintf("the role %s cannot be taken (%s)%s", planRole, why, goesOn), nil
	case err != nil:
		return nil, "", err
	case !may:
		return s, fmt.Sprintf("the role %s lacks its rights (run: trueup migrate up)%s", planRole, goesOn), nil
	case hidden:
		return s, fmt.Sprintf("row security on imagekit_files may hide rows from the role %s%s", planRole, goesOn), nil
	}
	return plan, "", nil
}

// cannotStepDown is PostgreSQL's reason for refusing the role; empty for every other
// error.
func cannotStepDown(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && (pe.Code == "22023" || pe.Code == "42501") {
		return pe.Message
	}
	return ""
}

// queueStepDown takes the store's role until the transaction ends; queued after guard,
// which needs more than it may.
func (s *Store) queueStepDown(b *pgx.Batch) {
	if s.role != "" {
		b.Queue(`SELECT set_config('role', $1, true)`, s.role)
	}
}
