// Package reconcile compares ImageKit's whole library with our whole table, repairs what
// differs, and polls for what changed lately: what nobody told us of is noticed here.
//
// It is apart from the worker because it starts from the listing instead of from events;
// it shares the worker's turn, budget and write path. Its one invariant: a listing never
// removes a row. What it shows may add or raise one by the order rule; what it does not
// show becomes at most an event, and too many of those none at all.
//
//	account ─→ list ──→ spool ──→ sort ─┐
//	                                    ├─ merge ─→ findings ─→ brakes ─→ repair ─→ settle
//	rows FULL JOIN file_state ──────────┘
package reconcile
