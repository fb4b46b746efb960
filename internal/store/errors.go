package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trueup/trueup/internal/event"
)

// BadData is an event.ErrUnstorable: a refusal that some value in the call brought about: the same call fails
// again. The worker halves it until one event is left, which becomes a dead letter.
type BadData struct {
	Op   string
	Code string // SQLSTATE
	Err  error
}

func (e *BadData) Error() string {
	return fmt.Sprintf("%s: the database refused a value (%s): %v", e.Op, e.Code, e.Err)
}
func (e *BadData) Unwrap() []error { return []error{event.ErrUnstorable, e.Err} }

// errLostRace: another transaction wrote the same row first; run again.
var errLostRace = errors.New("another transaction wrote the same row first")

// errStaleMapping: a column we fill is not there any more; read the mapping again.
var errStaleMapping = errors.New("imagekit_files has changed its columns")

// again reports whether running the whole transaction again may well succeed: a lost
// race, a serialization failure, a deadlock, a lock that was not free in time.
func again(err error) bool {
	if errors.Is(err, errLostRace) || errors.Is(err, errStaleMapping) {
		return true
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch pe.Code {
		case "40001", "40P01", "55P03":
			return true
		}
	}
	return false
}

// staleColumns reports an error that a changed imagekit_files explains.
func staleColumns(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "42703" || pe.Code == "42804" || pe.Code == "42846" || pe.Code == "0A000")
}

// classify names a failure by who must act. What no value in the call can have caused
// (a missing table or column, a missing privilege, a full disk) is an outage like no
// answer at all: nothing is parked for it.
func classify(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, event.ErrTurnMoved) || errors.Is(err, event.ErrPaused) || errors.Is(err, event.ErrOutage) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", op, err)
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		if badData(pe.Code) {
			return &BadData{Op: op, Code: pe.Code, Err: err}
		}
		return fmt.Errorf("%s: %s%w: %w", op, remedy(pe.Code), event.ErrOutage, err)
	}
	if again(err) || netFault(err) {
		return fmt.Errorf("%s: %w: %w", op, event.ErrOutage, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// badData reports the codes that a value brings about.
func badData(code string) bool {
	switch code {
	case "42501", "42P01", "42703", "42883", "42P02", "42602": // the schema, not the value
		return false
	}
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || strings.HasPrefix(code, "42")
}

// remedy is what to do about a refusal that lasts until somebody acts, with what ends
// it; empty for the others.
func remedy(code string) string {
	switch code {
	case "3F000", "42P01", "42703", "42883":
		return "the database's schema is missing or older than this version; run: trueup migrate up: "
	case "42501":
		return "the role of DATABASE_URL lacks a right; it must be a member of trueup_worker: "
	}
	return ""
}

func netFault(err error) bool {
	var ne net.Error
	var ce *pgconn.ConnectError
	return errors.As(err, &ne) || errors.As(err, &ce) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) ||
		strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "tls:")
}
