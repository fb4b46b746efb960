package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// failed is one line of a 207.
type failed struct {
	FileID string `json:"fileId"`
	Error  string `json:"error"`
}

// readIDs reads the fileIds of a bulk call.
func readIDs(raw json.RawMessage, most int, sayMost string) (ids []string, say string) {
	if raw == nil || string(raw) == "null" {
		return nil, "fileIds parameter is missing."
	}
	switch err := json.Unmarshal(raw, &ids); {
	case err != nil:
		return nil, "fileIds should be an Array."
	case len(ids) == 0:
		return nil, "fileIds is empty."
	case len(ids) > most:
		return nil, sayMost
	}
	return ids, ""
}

// bulk does one thing to each file: nothing to any if one is unknown, and in part
// (207) if a fault on the single call for a file fires.
func (e *Emulator) bulk(raw json.RawMessage, most int, sayMost, done, method, suffix string, each func(*record) []change) answer {
	ids, say := readIDs(raw, most, sayMost)
	if say != "" {
		return refuse(http.StatusBadRequest, say)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	broken := map[string]string{}
	for _, id := range ids {
		if f := e.fireOn(method, "/v1/files/"+id+suffix, ""); f.replaces() {
			broken[id] = fmt.Sprintf("A fault was asked for: %d.", f.answer().status)
		}
	}
	return e.change(func() ([]change, answer) {
		var missing []string
		for _, id := range ids {
			if f := e.lib.file(id); f == nil || e.hiding(f) {
				missing = append(missing, id)
			}
		}
		if missing != nil {
			return nil, answer{status: http.StatusNotFound, body: map[string]any{"message": sayNoFiles, "help": help, "missingFileIds": missing}}
		}
		changes, good, bad := []change{}, []string{}, []failed{}
		for _, id := range ids {
			if text, isBroken := broken[id]; isBroken {
				bad = append(bad, failed{id, text})
				continue
			}
			good = append(good, id)
			changes = append(changes, each(e.lib.file(id))...)
		}
		if len(bad) > 0 {
			return e.many(changes), answer{status: http.StatusMultiStatus, body: map[string]any{done: good, "errors": bad}}
		}
		return e.many(changes), ok(map[string]any{done: good})
	})
}

func (e *Emulator) bulkDelete(r *http.Request) answer {
	var ask struct {
		IDs json.RawMessage `json:"fileIds"`
	}
	if decodeBody(r, &ask) != nil {
		return refuse(http.StatusBadRequest, "fileIds parameter is missing.")
	}
	return e.bulk(ask.IDs, 100, "fileIds cannot have more than 100 items.", "successfullyDeletedFileIds", "DELETE", "",
		func(f *record) []change { return append([]change{{Drop: f.ID}}, e.announceDeleted(f)...) })
}

func (e *Emulator) addTags(r *http.Request) answer {
	return e.retag(r, func(have, tags []string) []string {
		for _, t := range tags {
			if !slices.Contains(have, t) {
				have = append(have, t)
			}
		}
		return have
	})
}

func (e *Emulator) removeTags(r *http.Request) answer {
	return e.retag(r, func(have, tags []string) []string {
		have = slices.DeleteFunc(have, func(t string) bool { return slices.Contains(tags, t) })
		if len(have) == 0 {
			return nil
		}
		return have
	})
}

// removeAITags has nothing to remove: nothing here makes them.
func (e *Emulator) removeAITags(r *http.Request) answer {
	return e.retag(r, func(have, _ []string) []string { return have })
}

func (e *Emulator) retag(r *http.Request, edit func(have, tags []string) []string) answer {
	var ask struct {
		IDs    json.RawMessage `json:"fileIds"`
		Tags   []string        `json:"tags"`
		AITags []string        `json:"AITags"`
	}
	if decodeBody(r, &ask) != nil {
		return refuse(http.StatusBadRequest, "fileIds and tags are arrays of texts.")
	}
	if len(ask.Tags)+len(ask.AITags) == 0 {
		return refuse(http.StatusBadRequest, "tags parameter is missing.")
	}
	if say := checkTags(ask.Tags); say != "" {
		return refuse(http.StatusBadRequest, say)
	}
	return e.bulk(ask.IDs, 50, "A maximum of 50 files can be edited at a time.", "successfullyUpdatedFileIds", "PATCH", "/details",
		func(f *record) []change {
			next := e.next(f)
			next.Tags = edit(slices.Clone(f.Tags), ask.Tags)
			return append([]change{{Put: next}}, e.announceUpdated(next)...)
		})
}
