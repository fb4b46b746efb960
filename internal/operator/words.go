package operator

import (
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// words turn stable words into plain ones. A word that is not there is shown as it
// is, so that a newer version's ledger can be read by an older one.
type words map[string]string

func (w words) of(word string) string {
	if s, ok := w[word]; ok {
		return s
	}
	return word
}

var verdicts = words{
	"present":   "the look-up saw it",
	"absent":    "the look-up found no such file",
	"refused":   "refused",
	"undecided": "the look-up decided nothing",
}

var outcomes = words{
	string(file.Applied):    "the row or its owner changed",
	string(file.Unchanged):  "nothing was written",
	string(file.Superseded): "what stood there was newer",
	string(file.Tombstoned): "the row was removed and remembered as gone",
	string(file.LookAgain):  "it may not decide yet",
}

var reasons = words{
	string(file.ReasonAdded):        "the file was new",
	string(file.ReasonRaised):       "its content was newer",
	string(file.ReasonRepaired):     "somebody had changed or deleted the row",
	string(file.ReasonRevived):      "it had been remembered as gone and is back",
	string(file.ReasonRegressed):    "its updatedAt had gone back, so it is asked once more",
	string(file.ReasonAdopted):      "the row was there before trueup knew the file",
	string(file.ReasonOwner):        "only the owner changed",
	string(file.ReasonCleared):      "a suspicion that it is gone was cleared",
	string(file.ReasonSame):         "nothing differed",
	string(file.ReasonStaleHit):     "the look was older than what is known",
	string(file.ReasonNotNews):      "a search hit without news does not answer this event",
	string(file.ReasonNominated):    "it was not found once, and a second look must confirm it",
	string(file.ReasonTooSoon):      "the second look came before TRUEUP_ABSENT_CONFIRM",
	string(file.ReasonConfirmed):    "two look-ups, far enough apart, found no such file",
	string(file.ReasonAnnounced):    "ImageKit announced the deletion and a look-up found no such file",
	string(file.ReasonNotFound):     "ImageKit does not know such a file",
	string(file.ReasonGone):         "it is remembered as gone",
	string(file.ReasonNoCanary):     "nothing proves that the key still sees our library, so nothing is removed",
	string(file.ReasonFuseLatched):  "the fuse is latched, so nothing is removed that ImageKit did not announce",
	string(file.ReasonClaimRefused): "the reporter is not the owner, or the file could not be claimed any more",
	run.ReasonMoved:                 "the row was created or changed after the run had begun, so the next one judges it",
	run.ReasonSameByNow:             "row and file agreed by then",
	run.ReasonUnreadable:            "ImageKit lists the file in a form that cannot be believed",
	run.ReasonNobody:                "no ticket and no claim says whose it is",
	run.ReasonPresent:               "a look-up by id found the file, so its row stands",
	run.ReasonNotJudged:             "ImageKit's account was not recognised",
	"still_present":                 "ImageKit announced its deletion and goes on showing it",
	"gave_up":                       "look-ups failed for as long as TRUEUP_RETRY_MAX_AGE",
	"panic":                         "trueup's own code panicked over it",
	"poison":                        "trueup's process ended over it more than once",
	"unstorable":                    "the database refuses its data",
	"undecodable":                   "it could not be read from the queue",
	"look_again":                    "it has to be looked up by id",
}

var flags = words{
	"ticket_conflict": "a different ticket turned up later, or two tickets contradict each other",
	"proof_missing":   "the ticket that proved the owner has vanished from the file",
	"ticket_reused":   "the same ticket is on another file too",
	"claim_refused":   "somebody else has claimed it",
}

// actors are the classes of dead letters: who must act.
var actors = words{
	"caller":   "the caller",
	"imagekit": "whoever looks after the ImageKit account",
	"database": "whoever runs the database",
	"trueup":   "whoever maintains trueup",
}

// faults are the reasons of attempts: a look-up that gave no answer to go by.
var faults = words{
	string(file.BadRequest):   "ImageKit did not take our question",
	string(file.Unauthorized): "ImageKit did not accept the key",
	string(file.Forbidden):    "ImageKit did not let the key see it",
	string(file.Limited):      "ImageKit's rate limit",
	string(file.Unavailable):  "ImageKit failed",
	string(file.Unreachable):  "ImageKit could not be reached",
	string(file.TimedOut):     "ImageKit did not answer in time",
	string(file.Garbled):      "ImageKit's answer was not to be understood",
	string(file.Panicked):     "trueup's own code panicked over this file",
}
