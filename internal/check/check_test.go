package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func (e *Evidence) row(id string) *Row {
	i := slices.IndexFunc(e.Rows, func(r Row) bool { return r.FileID == id })
	return &e.Rows[i]
}

func (e *Evidence) state(id string) *State {
	i := slices.IndexFunc(e.States, func(s State) bool { return s.FileID == id })
	return &e.States[i]
}

func (e *Evidence) dropLine(n int) {
	e.Ledger = slices.DeleteFunc(slices.Clone(e.Ledger), func(l Line) bool { return l.ID == ulid(n) })
}

func (e *Evidence) dropRequests(drop func(Request) bool) {
	e.Requests = slices.DeleteFunc(e.Requests, drop)
}

func TestDoctoredEvidenceFails(t *testing.T) {
	for _, d := range slices.Concat(doctoredAccounts(), doctoredTables(), doctoredOrders(), doctoredRemovals(), doctoredFuses(), doctoredLetters(),
		doctoredOwners(), doctoredSenders(), doctoredStories()) {
		d.try(t)
	}
}

func doctoredAccounts() []doctored {
	return []doctored{
		{"AReportIsNowhere", I1, Safety, func(e *Evidence) { e.dropLine(6) }},
		{"AWebhookIsNowhere", I1, Safety, func(e *Evidence) { e.dropLine(3) }},
		{"OneOfTwoDeliveriesIsNowhere", I1, "", func(e *Evidence) {
			e.Acks = append(e.Acks, webhook("proven", "file.created", "w1", at(0.7)))
		}},
		{"AReportIsStoredAsAnothers", I1, "", func(e *Evidence) { e.Ledger[4].User = "mallory" }},
		{"EndedAndWaiting", I1, "", func(e *Evidence) {
			e.Retries = append(e.Retries, Retry{EventID: ulid(1), FileID: "proven", Source: "webhook", Reason: "x"})
		}},
		{"TwoLines", I1, "", func(e *Evidence) { e.Ledger = append(e.Ledger, e.Ledger[0]) }},
		{"DeadWithoutALetter", I1, "", func(e *Evidence) { e.DeadLetters = []DeadLetter{} }},
		{"ALetterOfNobody", I1, "", func(e *Evidence) { e.DeadLetters[0].EventID = ulid(99) }},
		{"ResolvedByNothing", I1, "", func(e *Evidence) { e.DeadLetters[0].State = "resolved" }},
		{"DiscardedByNobody", I1, "", func(e *Evidence) { e.DeadLetters[0].State = "discarded" }},
		{"TheQueueHeldMore", I1, "", func(e *Evidence) {
			e.Stored = []string{ulid(1), ulid(2), ulid(3), ulid(4), ulid(5), ulid(6), ulid(7), ulid(8), ulid(9)}
		}},
		{"TheQueueHeldLess", I1, "", func(e *Evidence) { e.Stored = []string{ulid(1)} }},
		{"AnUnknownEnd", I1, "", func(e *Evidence) { e.Ledger[0].EndKind = "forgotten" }},
	}
}

func doctoredTables() []doctored {
	all := []doctored{
		{"ARowIsMissing", I2, "", func(e *Evidence) { e.Rows = e.Rows[:1] }},
		{"ARowTooMany", I2, "", func(e *Evidence) { e.Rows = append(e.Rows, rowOf("told", "t.png", "", at(2), at(2), 1)) }},
		{"ARetryIsStuck", I2, "", func(e *Evidence) {
			e.Retries = append(e.Retries, Retry{EventID: ulid(50), FileID: "proven", Source: "client", Reason: "limited"})
		}},
		{"AMessageIsStuck", I2, "", func(e *Evidence) {
			e.Stream = append(e.Stream, Message{Data: encode("e", []string{`{"i":"` + ulid(50) + `","s":"client","f":"proven","a":1}`}, []string{""})})
		}},
		{"ALetterIsStuck", I2, "", func(e *Evidence) { e.DeadLetters[0].State = "replaying" }},
		{"AMarkerInATag", I3, Safety, func(e *Evidence) { e.row("claimed").Tags = []string{"PLANTED"} }},
		{"AMarkerInTheURL", I3, Safety, func(e *Evidence) { e.row("claimed").FileURL = "https://PLANTED" }},
		{"AMarkerInTheMetadata", I3, Safety, func(e *Evidence) { e.row("claimed").CustomMetadata = json.RawMessage(`{"a":{"b":"PLANTED"}}`) }},
		{"AStateThatNeverWas", I3, Safety, func(e *Evidence) { e.row("claimed").SizeBytes = p[int64](9) }},
		{"AMixOfTwoStates", I3, Safety, func(e *Evidence) { e.row("proven").RemoteUpdatedAt = p(at(0)) }},
		{"AFileThatNeverWas", I3, Safety, func(e *Evidence) { e.Rows = append(e.Rows, rowOf("invented", "i.png", "", at(1), at(1), 1)) }},
	}
	for _, c := range contentColumns {
		all = append(all, doctored{"Column/" + c, I2, "", func(e *Evidence) { corrupt(e.row("claimed"), c) }})
	}
	return all
}

// corrupt changes one column.
func corrupt(r *Row, column string) {
	other := "other"
	switch column {
	case "file_url":
		r.FileURL += "?updatedAt=1"
	case "upload_timestamp":
		r.UploadTimestamp = p(at(11))
	case "file_name":
		r.FileName = nil
	case "file_path":
		r.FilePath = &other
	case "file_type":
		r.FileType = &other
	case "mime":
		r.MIME = &other
	case "size_bytes":
		r.SizeBytes = nil
	case "width":
		r.Width = p[int64](8)
	case "height":
		r.Height = p[int64](8)
	case "thumbnail_url":
		*r.ThumbnailURL += "&updatedAt=1"
	case "tags":
		r.Tags = []string{}
	case "custom_metadata":
		r.CustomMetadata = json.RawMessage(`{"n":"1.5","alt":"x"}`)
	case "version_id":
		r.VersionID = &other
	case "is_private":
		r.IsPrivate = p(true)
	case "remote_updated_at":
		r.RemoteUpdatedAt = p(at(10.001))
	}
}

func doctoredOrders() []doctored {
	return []doctored{
		{"SeenWentBack", I5, Safety, func(e *Evidence) { e.state("claimed").Seen = 7 }},
		{"HighWentBack", I5, Safety, func(e *Evidence) { e.state("proven").High = p(at(0)) }},
		{"TheMemoryIsGone", I5, Safety, func(e *Evidence) { e.States = e.States[1:] }},
		{"AnOlderStateWithoutALookUp", I5, Safety, func(e *Evidence) {
			old := rowOf("proven", "a.png", "user_123", at(0), at(0), 1, "cat")
			old.Xmin = "99"
			e.Rows[0] = old
		}},
		{"AnOlderStateByAnOlderLookUp", I5, Safety, func(e *Evidence) {
			e.Requests = append(e.Requests, look("proven", at(40.9), 200))
			old := rowOf("proven", "a.png", "user_123", at(0), at(0), 1, "cat")
			old.Xmin = "99"
			e.Rows[0] = old
			e.dropRequests(func(r Request) bool { return r.At.Equal(at(41)) })
		}},
		{"RevivedWithoutALookUp", I6, Safety, func(e *Evidence) { revive(e, "told") }},
		{"RevivedByAnOldLookUp", I6, Safety, func(e *Evidence) {
			e.Requests = append(e.Requests, look("told", at(51.2), 200))
			revive(e, "told")
		}},
		{"RevivedByAPageOfHTML", I6, Safety, func(e *Evidence) {
			r := look("told", at(55), 200)
			r.Body = "text"
			e.Requests = append(e.Requests, r)
			revive(e, "told")
		}},
	}
}

func revive(e *Evidence, id string) {
	e.Rows = append(e.Rows, rowOf(id, "t.png", "", at(2), at(2), 1))
	e.state(id).GoneAt = nil
}

func doctoredRemovals() []doctored {
	tombstone := func(e *Evidence, id, why string, when time.Time) {
		e.Rows = slices.DeleteFunc(e.Rows, func(r Row) bool { return r.FileID == id })
		s := e.state(id)
		s.GoneAt, s.GoneWhy, s.Seen = p(when), why, 100
	}
	return []doctored{
		{"ASingle404", I7, Safety, func(e *Evidence) { e.dropRequests(func(r Request) bool { return r.At.Equal(at(100)) }) }},
		{"TooClose", I7, Safety, func(e *Evidence) {
			for i := range e.Requests {
				if e.Requests[i].At.Equal(at(100)) {
					e.Requests[i].At = at(140.5)
				}
			}
		}},
		{"ThirdParty404", I7, Safety, func(e *Evidence) {
			for i := range e.Requests {
				if e.Requests[i].At.Equal(at(100)) {
					e.Requests[i].Body = "text"
				}
			}
		}},
		{"AnnouncedByNobody", I7, Safety, func(e *Evidence) {
			e.Acks = slices.DeleteFunc(e.Acks, func(a Ack) bool { return a.Kind == "file.deleted" })
		}},
		{"AnnouncedByAForger", I7, Safety, func(e *Evidence) {
			for i := range e.Acks {
				if e.Acks[i].Kind == "file.deleted" {
					e.Acks[i].Genuine = false
				}
			}
		}},
		{"AnnouncedAfterThe404", I7, Safety, func(e *Evidence) {
			for i := range e.Acks {
				if e.Acks[i].Kind == "file.deleted" {
					e.Acks[i].SentAt = at(51.2)
				}
			}
		}},
		{"AnnouncedWithoutALookUp", I7, Safety, func(e *Evidence) {
			e.dropRequests(func(r Request) bool { return strings.Contains(r.Path, "/told/") && r.Status == 404 })
		}},
		{"NoCanary", I7, Safety, func(e *Evidence) { e.dropRequests(func(r Request) bool { return r.At.Equal(at(199)) }) }},
		{"AListingIsNoReason", I7, Safety, func(e *Evidence) { e.state("untold").GoneWhy = "orphaned" }},
		{"ALiveFileByTwoShortLies", I7, Safety, func(e *Evidence) {
			e.Requests = append(e.Requests, look("claimed", at(300), 404), look("claimed", at(330), 200), look("claimed", at(370), 404), look("proven", at(371), 200))
			e.Lies = []Lie{{at(299), at(301), "claimed"}, {at(369), at(371), "claimed"}}
			tombstone(e, "claimed", "confirmed", at(372))
		}},
		{"ALiveFileByALieAboutAll", I7, Safety, func(e *Evidence) {
			e.Requests = append(e.Requests, look("claimed", at(300), 404), look("claimed", at(370), 404), look("proven", at(310), 200))
			e.Lies = []Lie{{at(299), at(400), ""}}
			tombstone(e, "claimed", "confirmed", at(372))
		}},
		{"StillGoneAtTheEnd", I7, Settled, func(e *Evidence) {
			e.Requests = append(e.Requests, look("claimed", at(300), 404), look("claimed", at(370), 404), look("proven", at(371), 200))
			e.Lies = []Lie{{at(299), at(400), "claimed"}}
			tombstone(e, "claimed", "confirmed", at(372))
		}},
	}
}

// orphan adds a file that was removed without a word, by the rules.
func orphan(e *Evidence, n int, from time.Time) {
	id := fmt.Sprintf("orphan%02d", n)
	e.History = append(e.History, Change{at(0), id, Uploaded, details(id, id, at(0), at(0), 1)}, Change{at(51), id, Deleted, nil})
	e.Requests = append(e.Requests, look(id, from, 404), look(id, from.Add(90*time.Second), 404), look("proven", from.Add(89*time.Second), 200))
	gone := from.Add(91 * time.Second)
	e.States = append(e.States, State{FileID: id, Seen: 50, GoneAt: &gone, GoneWhy: "confirmed"})
	e.Ledger = append(e.Ledger, Line{ID: "o" + id, At: gone, FileID: id, Source: "trueup", Kind: "write", Outcome: "tombstoned", Reason: "confirmed"})
	e.Findings = append(e.Findings, Finding{RunID: "run1", FileID: id, Kind: "orphaned", Status: "repaired", Reason: "confirmed"})
}

func doctoredFuses() []doctored {
	many := func(n int, each func(e *Evidence, i int)) func(*Evidence) {
		return func(e *Evidence) {
			for i := range n {
				each(e, i)
			}
		}
	}
	return []doctored{
		{"ElevenInADay", I8, Safety, many(10, func(e *Evidence, i int) {
			orphan(e, i, at(100+float64(i)*3600))
			e.Findings = nil
			e.Findings = []Finding{}
		})},
		{"ElevenInARun", I8, Safety, many(10, func(e *Evidence, i int) { orphan(e, i, at(100+float64(i)*36000)) })},
		{"MoreThanAnOperatorExpected", I8, Safety, func(e *Evidence) {
			e.Runs[0].ExpectedDeletions = p[int64](1)
			orphan(e, 1, at(100))
		}},
		{"WhileLatched", I8, Safety, func(e *Evidence) { e.Fuse.LatchedAt = p(at(150)) }},
	}
}

func TestTheFuseAllowsWhatItAllows(t *testing.T) {
	for name, doctor := range map[string]func(*Evidence){
		"TenInADay": func(e *Evidence) {
			for i := range 9 {
				orphan(e, i, at(100))
			}
		},
		"ElevenInTwoDays": func(e *Evidence) {
			for i := range 10 {
				orphan(e, i, at(100+float64(i)*20000))
			}
			e.Findings = []Finding{}
		},
		"AsManyAsExpected": func(e *Evidence) {
			for i := range 30 {
				orphan(e, i, at(100))
			}
			e.Runs[0].ExpectedDeletions = p[int64](31)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := honest()
			doctor(e)
			for _, v := range Run(e, Safety).Violations {
				t.Error(v)
			}
		})
	}
}

func doctoredLetters() []doctored {
	letter := func(doctor func(*DeadLetter)) func(*Evidence) {
		return func(e *Evidence) {
			e.DeadLetters = slices.Clone(e.DeadLetters)
			doctor(&e.DeadLetters[0])
		}
	}
	return []doctored{
		{"NoReason", I9, Safety, letter(func(d *DeadLetter) { d.Reason = "" })},
		{"NoClass", I9, Safety, letter(func(d *DeadLetter) { d.Class = "somebody" })},
		{"NoAttempt", I9, Safety, func(e *Evidence) {
			e.Series = []Dump{}
			e.DeadLetters[0].Attempts = nil
		}},
		{"AnAttemptWithoutAVersion", I9, Safety, func(e *Evidence) { e.DeadLetters[0].Attempts[0].Version = "" }},
		{"AnotherBody", I9, Safety, func(e *Evidence) {
			e.Series = []Dump{}
			e.DeadLetters[0].Body = []byte(`{"type":"file.created"}`)
		}},
		{"OneByteLess", I9, Safety, letter(func(d *DeadLetter) { d.Body = d.Body[:len(d.Body)-1] })},
		{"AMaskThatHidesNothing", I9, Safety, letter(func(d *DeadLetter) { d.Masked = []Span{{0, 3}} })},
		{"AHistoryThatIsNone", I9, Safety, letter(func(d *DeadLetter) { d.History = json.RawMessage("{}") })},
		{"Displaced", I9, Safety, func(e *Evidence) { e.DeadLetters = []DeadLetter{} }},
		{"AShorterHistory", I9, Safety, func(e *Evidence) {
			before := slices.Clone(e.DeadLetters)
			before[0].History = json.RawMessage(`[{"event":"x"}]`)
			e.Series[1].DeadLetters = before
		}},
	}
}

func doctoredOwners() []doctored {
	owner := func(id, user, kind string) func(*Evidence) {
		return func(e *Evidence) {
			e.row(id).UserID = user
			s := e.state(id)
			s.Owner, s.OwnerKind = user, kind
		}
	}
	return []doctored{
		{"AReporterGetsAProvenFile", I11, Safety, func(e *Evidence) {
			e.Ledger = append(e.Ledger, line(40, "client", "report", "proven", "mallory", at(1), at(2), "done", "same"))
			owner("proven", "mallory", "claimed")(e)
		}},
		{"SomebodyWithoutAReport", I11, Safety, owner("claimed", "mallory", "claimed")},
		{"TheLaterReportWins", I11, Settled, owner("claimed", "late", "claimed")},
		{"TheClaimIsDropped", I11, Settled, owner("claimed", "", "")},
		{"TheTicketIsIgnored", I11, Settled, owner("proven", "", "")},
		{"AReportAfterTheWindow", I11, Safety, func(e *Evidence) {
			for i := range e.Ledger {
				if e.Ledger[i].User != "" {
					e.Ledger[i].AcceptedAt = p(at(4000))
				}
			}
		}},
		{"AReportOnAFileNotYetThere", I11, Safety, func(e *Evidence) {
			for i := range e.Ledger {
				if e.Ledger[i].User != "" {
					e.Ledger[i].AcceptedAt = p(at(-400))
				}
			}
		}},
		{"AClaimWhereTicketsRule", I11, Safety, func(e *Evidence) { e.Settings.Signed = true }},
		{"AnAssignmentIsForgotten", I11, Safety, func(e *Evidence) {
			e.Audit = []Act{{ID: "a1", At: at(500), Who: "ops", Verb: "assign", File: "claimed", User: "boss"}}
		}},
		{"TheRowDoesNotFollow", I11, Settled, func(e *Evidence) { e.row("claimed").UserID = "late" }},
		{"APersonsUpdateIsBelieved", I11, Safety, func(e *Evidence) {
			e.Hands = []Hand{{At: at(300), FileID: "claimed", Kind: HandUpdate, User: "mallory"}}
			owner("claimed", "mallory", "adopted")(e)
		}},
		{"AForgedTicket", I11, Safety, func(e *Evidence) {
			e.Settings.Account = "another"
		}},
	}
}

func doctoredSenders() []doctored {
	forged := func(where func(e *Evidence)) func(*Evidence) { return where }
	return []doctored{
		{"AServerError", I12, Safety, func(e *Evidence) { e.Acks[0].Status = 500 }},
		{"ARedirect", I12, Safety, func(e *Evidence) { e.Acks[0].Status = 302 }},
		{"AReportAnswered200", I12, Safety, func(e *Evidence) { e.Acks[4].Status = 200 }},
		{"AskedBeforeTheReset", I13, Safety, func(e *Evidence) { e.Requests = append(e.Requests, look("proven", at(21.9), 200)) }},
		{"AskedAtOnce", I13, Safety, func(e *Evidence) { e.Requests = append(e.Requests, look("proven", at(20.002), 200)) }},
		{"AskedAgainAfterAStartLongAgo", I13, Safety, func(e *Evidence) {
			e.Starts = []time.Time{at(19)}
			e.Requests = append(e.Requests, look("proven", at(21), 200))
		}},
		{"Accepted", I14, Safety, func(e *Evidence) { e.Acks[8].Status = 202 }},
		{"HasARow", I14, Safety, forged(func(e *Evidence) { e.Rows = append(e.Rows, rowOf("forged", "f.png", "", at(1), at(1), 1)) })},
		{"IsRemembered", I14, Safety, forged(func(e *Evidence) { e.States = append(e.States, State{FileID: "forged"}) })},
		{"HasALine", I14, Safety, forged(func(e *Evidence) { e.Ledger = append(e.Ledger, Line{ID: "x", FileID: "forged"}) })},
		{"IsInTheStream", I14, Safety, forged(func(e *Evidence) {
			e.Stream = []Message{{Data: encode("e", []string{`{"i":"` + ulid(9) + `","s":"webhook","f":"forged","a":1}`}, []string{"{}"})}}
		})},
		{"IsAskedAbout", I14, Safety, forged(func(e *Evidence) { e.Requests = append(e.Requests, look("forged", at(70), 404)) })},
		{"IsSearchedFor", I14, Safety, forged(func(e *Evidence) {
			e.Requests = append(e.Requests, Request{At: at(70), Method: "GET", Path: "/v1/files", Query: "searchQuery=id+IN+%5B%22proven%22%2C%22forged%22%5D", Status: 200})
		})},
		{"AHealthyLetter", I15, Settled, func(e *Evidence) { e.Settings.Poison = []string{} }},
		{"PoisonWithoutALetter", I15, Settled, func(e *Evidence) { e.DeadLetters = []DeadLetter{} }},
		{"AHealthyEventIsLate", I15, Settled, func(e *Evidence) { e.Ledger[0].At = at(100) }},
	}
}

func doctoredStories() []doctored {
	return []doctored{
		{"ATombstoneNobodyTellsOf", I16, Safety, func(e *Evidence) {
			e.Ledger = slices.DeleteFunc(slices.Clone(e.Ledger), func(n Line) bool { return n.ID == "s2" })
		}},
		{"ARowNobodyTellsOf", I16, Safety, func(e *Evidence) {
			e.Ledger = slices.DeleteFunc(slices.Clone(e.Ledger), func(n Line) bool { return n.FileID == "claimed" })
		}},
		{"ARowFileStateDoesNotKnow", I16, Settled, func(e *Evidence) { e.States = e.States[1:] }},
		{"ARejectionWithoutAReason", I16, Safety, func(e *Evidence) { e.Ledger[5].Reason = "" }},
		{"AFlagNobodyTellsOf", I16, Safety, func(e *Evidence) { e.state("proven").Flags = []string{"proof_missing"} }},
		{"AWaitWithoutAReason", I16, Safety, func(e *Evidence) { e.Retries = []Retry{{EventID: ulid(77), FileID: "proven"}} }},
		{"ACompleteRunThatWasCutShort", I16, Safety, func(e *Evidence) { e.Runs[0].Whole = false }},
		{"ACompleteRunWithAnOpenFinding", I16, Safety, func(e *Evidence) { e.Findings[0].Status = "found" }},
		{"APartialRunThatSaysNothing", I16, Safety, func(e *Evidence) { e.Runs[0].State = "partial" }},
		{"AnActByNobody", I16, Safety, func(e *Evidence) { e.Audit = []Act{{ID: "a", At: at(1), Verb: "pause"}} }},
	}
}

// What was not gathered never passes.
func TestMissingEvidenceFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		doctor func(*Evidence)
		breaks []Invariant
	}{
		{"Acks", func(e *Evidence) { e.Acks = nil }, []Invariant{I1, I7, I9, I12, I14, I15}},
		{"Truth", func(e *Evidence) { e.Truth = nil }, []Invariant{I2, I3, I7, I11, I14}},
		{"History", func(e *Evidence) { e.History = nil }, []Invariant{I3, I5, I7, I11, I14}},
		{"Requests", func(e *Evidence) { e.Requests = nil }, []Invariant{I5, I6, I7, I8, I13, I14}},
		{"Lies", func(e *Evidence) { e.Lies = nil }, []Invariant{I7}},
		{"Hands", func(e *Evidence) { e.Hands = nil }, []Invariant{I3, I5, I6, I11}},
		{"Stream", func(e *Evidence) { e.Stream = nil }, []Invariant{I1, I2, I14, I15}},
		{"Series", func(e *Evidence) { e.Series = nil }, []Invariant{I5, I6, I7, I8, I9}},
		{"Retries", func(e *Evidence) { e.Retries = nil }, []Invariant{I1, I2, I16}},
		{"Fuse", func(e *Evidence) { e.Fuse = nil }, []Invariant{I1, I2, I16}},
		{"AbsentConfirm", func(e *Evidence) { e.Settings.AbsentConfirm = 0 }, []Invariant{I1, I7, I16}},
		{"Everything", func(e *Evidence) { *e = Evidence{} }, []Invariant{I1, I2, I3, I5, I6, I7, I8, I9, I11, I12, I13, I14, I15, I16}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := honest()
			c.doctor(e)
			v := Run(e, Settled)
			for _, i := range c.breaks {
				if !slices.ContainsFunc(v.Violations, func(w Violation) bool {
					return w.Invariant == i && strings.HasPrefix(w.Says, "no evidence for "+string(i)+": ")
				}) {
					t.Errorf("%s passed without it", i)
				}
			}
		})
	}
	t.Run("UnlessTheCallerSaysSo", func(t *testing.T) {
		e := honest()
		e.Lies, e.Without = nil, []Invariant{I7}
		if v := Run(e, Settled); !v.OK() || !slices.Equal(v.Unchecked, []Invariant{I7}) {
			t.Errorf("%v, unchecked %v", v.Violations, v.Unchecked)
		}
	})
}
