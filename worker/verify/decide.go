package verify

import (
	"github.com/trueup/trueup/internal/file"
)

// Verdict is what asking about a file came to.
type Verdict string

const (
	Present   Verdict = "present"   // it is there
	Absent    Verdict = "absent"    // ImageKit says that it is not
	Refused   Verdict = "refused"   // ImageKit will not be asked this way; asking again is no use by itself
	Undecided Verdict = "undecided" // it could not be found out now
)

// Decide names the verdict of an answer, and why, in one stable word: how the file
// was seen, how it is missing, or the fault's kind. It is pure.
func Decide(a Answer) (Verdict, string) {
	switch o := a.Observation; {
	case o != nil && o.Present():
		return Present, string(o.How)
	case o != nil && (o.Status == 0 || o.Status == 400):
		return Absent, string(file.InvalidID)
	case o != nil:
		return Absent, string(file.NotFound)
	case a.Fault == nil:
		return Undecided, "not_asked"
	case a.Fault.Kind == file.BadRequest:
		return Refused, string(a.Fault.Kind)
	}
	return Undecided, string(a.Fault.Kind)
}
