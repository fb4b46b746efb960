package verify

import (
	"github.com/trueup/trueup/internal/file"
)

// merge makes one ask of all asks for a file, as strict as the strictest, and says
// where each went.
func merge(asks []Ask) (merged []Ask, at []int) {
	index := make(map[string]int, len(asks))
	at = make([]int, len(asks))
	for i, a := range asks {
		a.Priority = min(max(a.Priority, Live), Run)
		j, known := index[a.FileID]
		if !known {
			j = len(merged)
			index[a.FileID] = j
			merged = append(merged, a)
		} else {
			merged[j] = stricter(merged[j], a)
		}
		at[i] = j
	}
	return merged, at
}

func stricter(a, b Ask) Ask {
	a.NewsOnly = a.onlyNews() || b.onlyNews()
	a.Priority = min(a.Priority, b.Priority)
	a.ByID = a.ByID || b.ByID
	a.AnyHit = a.AnyHit && b.AnyHit
	a.Announced = a.Announced || b.Announced
	if b.UpdatedAt.After(a.UpdatedAt) {
		a.UpdatedAt = b.UpdatedAt
	}
	return a
}

// onlyNews reports whether a hit must be news to answer.
func (a Ask) onlyNews() bool { return a.NewsOnly || a.UpdatedAt.IsZero() }

// searchable reports whether a hit could answer at all. Only a look-up lifts a
// tombstone, ends a suspicion or explains a missing row; and where a hit must be
// news, a live row makes it unlikely that it is.
func searchable(a Ask, k file.Known) bool {
	switch {
	case a.ByID, a.Announced, k.Gone, k.Suspect:
		return false
	case a.AnyHit:
		return true
	case k.Seen && !k.Live:
		return false
	case k.Live && a.onlyNews():
		return false
	}
	return true
}

// hitAnswers reports whether this hit may answer this ask: it is news, or it is at
// or after what the webhook spoke of.
func hitAnswers(a Ask, k file.Known, hit file.Snapshot) bool {
	if k.Gone {
		return false
	}
	if a.AnyHit {
		return true
	}
	news := !k.Seen && !k.Live || k.Live && hit.UpdatedAt.After(k.High)
	if a.onlyNews() {
		return news
	}
	return news || !hit.UpdatedAt.Before(a.UpdatedAt)
}

// needsCanary reports whether a 404 might remove something.
func needsCanary(a Ask, k file.Known) bool {
	return a.Announced || k.Live || k.Suspect || k.Seen && !k.Gone
}
