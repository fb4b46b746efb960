package run

import "errors"

// FindingFilter selects findings of a run; a zero field selects all.
type FindingFilter struct {
	Kind   FindingKind
	Status Status
}

// ErrAccount means that nothing of the run was judged, because ImageKit's account was
// not recognised, and that applying it needs AcceptAccount.
var ErrAccount = errors.New("the account was not recognised, and nothing was judged")
