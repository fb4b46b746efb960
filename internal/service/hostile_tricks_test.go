package service_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// What ImageKit, or whatever answers in its place, may do to us. Each trick names what it
// has done in the reply.

// calls says for which calls of a kind a trick is played.
type calls func(n int) bool

func nth(k int) calls   { return func(n int) bool { return n == k } }
func since(k int) calls { return func(n int) bool { return n >= k } }
func every(int) bool    { return true }

// ofList plays a trick on list pages.
func ofList(when calls, was string, f func(q *question, r *reply)) trick {
	return func(q *question, r *reply) {
		if q.kind == "list" && when(q.n) {
			f(q, r)
			r.was = was
		}
	}
}

func emptied(when calls) trick {
	return ofList(when, "empty", func(_ *question, r *reply) { r.rows = nil })
}

// truncated leaves out the end of a page.
func truncated(when calls, to int) trick {
	return ofList(when, "truncated", func(_ *question, r *reply) { r.rows = r.rows[:min(to, len(r.rows))] })
}

// garbled are answers that are none, in one of several forms.
func garbled(when calls, form int) trick {
	return ofList(when, "garbled", func(_ *question, r *reply) { garble(r, form) })
}

const garbledForms = 8

func garble(r *reply, form int) {
	switch form % garbledForms {
	case 0:
		r.content = "text/html"
		r.says("<html><body>We will be back soon.</body></html>")
	case 1:
		r.says("<html><body>We will be back soon.</body></html>")
	case 2:
		whole := fmt.Sprint(r.rows)
		r.says(`[{"type":"file","fileId":"` + whole[:min(9, len(whole))])
	case 3:
		r.cut = true
	case 4:
		r.says(`{"items":[]}`)
	case 5:
		r.says("null")
	case 6:
		r.status = http.StatusBadGateway
		r.says("bad gateway")
	default:
		r.err = errNobodyThere
	}
}

// repeated shows the page before once more.
func repeated(when calls) trick {
	var last []string
	return func(q *question, r *reply) {
		if q.kind != "list" {
			return
		}
		if when(q.n) && last != nil {
			r.rows, r.was = slices.Clone(last), "repeated"
			return
		}
		last = slices.Clone(r.rows)
	}
}

func disordered(when calls, seed uint64) trick {
	return ofList(when, "disordered", func(q *question, r *reply) {
		rand.New(rand.NewPCG(seed, uint64(q.n))).Shuffle(len(r.rows), func(i, j int) { r.rows[i], r.rows[j] = r.rows[j], r.rows[i] })
	})
}

func doubled(when calls) trick {
	return ofList(when, "doubled", func(_ *question, r *reply) {
		for i := len(r.rows) - 1; i >= 0; i -= 2 {
			r.rows = slices.Insert(r.rows, i, r.rows[i])
		}
	})
}

// hidden never shows some files.
func hidden(when calls, ids ...string) trick {
	return ofList(when, "hidden", func(q *question, r *reply) {
		books := slices.DeleteFunc(q.s.ordered(), func(b book) bool { return slices.Contains(ids, b.id) })
		r.rows = texts(pageOf(books, q.from, q.skip, q.s.page))
	})
}

// dropped leaves files out of the pages that should have shown them, and keeps their
// place.
func dropped(when calls, ids ...string) trick {
	return ofList(when, "dropped", func(q *question, r *reply) {
		r.rows = nil
		for _, b := range q.s.at(q.from, q.skip) {
			if !slices.Contains(ids, b.id) {
				r.rows = append(r.rows, b.json())
			}
		}
	})
}

func skipIgnored(q *question, r *reply) {
	if q.kind == "list" && q.skip > 0 {
		r.rows, r.was = texts(q.s.at(q.from, 0)), "skip ignored"
	}
}

// skipRefused is a cap on how far may be skipped.
func skipRefused(q *question, r *reply) {
	if q.kind == "list" && q.skip > 0 {
		r.status, r.was = http.StatusBadRequest, "skip refused"
		r.says(`{"message":"skip is too large"}`)
	}
}

// strangers stand among the files: folders, file versions, things yet unknown.
func strangers(when calls) trick {
	return ofList(when, "strangers", func(_ *question, r *reply) {
		if len(r.rows) == 0 {
			return
		}
		r.rows = slices.Insert(r.rows, len(r.rows)/2, `{"type":"folder","folderId":"d1","name":"d","folderPath":"/d"}`,
			`{"type":"file-version","fileId":"v1","url":"https://x/y","createdAt":"2025-03-01T08:00:00Z","updatedAt":"2025-03-01T08:00:00Z"}`,
			`{"type":"hologram","hologramId":"h1","depth":3}`)
	})
}

// unreadable shows files in a form that cannot be believed.
func unreadable(when calls, form int, ids ...string) trick {
	forms := []map[string]any{{"url": nil}, {"createdAt": "yesterday"}, {"size": "big"}, {"tags": map[string]any{}}, {"type": "hologram"}, {"updatedAt": nil}}
	return ofList(when, "unreadable", func(q *question, r *reply) {
		for i, b := range q.s.at(q.from, q.skip) {
			if slices.Contains(ids, b.id) && i < len(r.rows) {
				r.rows[i] = b.with(forms[form%len(forms)])
			}
		}
	})
}

// nameless rows may be files, but nobody knows which.
func nameless(when calls) trick {
	return ofList(when, "nameless", func(_ *question, r *reply) {
		if len(r.rows) > 0 {
			r.rows[len(r.rows)-1] = `{"type":"file","url":"https://ik.example/x"}`
		}
	})
}

// outdated shows files as they were before they were overwritten.
func outdated(when calls, ids ...string) trick {
	return ofList(when, "outdated", func(q *question, r *reply) {
		for i, b := range q.s.at(q.from, q.skip) {
			if slices.Contains(ids, b.id) && i < len(r.rows) {
				r.rows[i] = book{id: b.id, version: 1, created: b.created, updated: b.created}.json()
			}
		}
	})
}

// grows puts files on the shelf before the kth page is read, shrinks takes some away.
func grows(k int, books ...book) trick {
	return before(k, "grown", func(q *question) { q.s.add(books...) })
}

func shrinks(k int, ids ...string) trick {
	return before(k, "shrunk", func(q *question) {
		for _, id := range ids {
			delete(q.s.books, id)
		}
	})
}

func before(k int, was string, f func(q *question)) trick {
	return func(q *question, r *reply) {
		if q.kind == "list" && q.n == k {
			f(q)
			*r = q.s.honest(q)
			r.was = was
		}
	}
}

// revoked is a private key that ends before the kth page, for everything.
func revoked(k, status int) trick {
	return func(q *question, r *reply) {
		if q.s.asked["list"] > k {
			r.refuses(status)
			r.was = "revoked"
		}
	}
}

// anotherAccount answers for another library from the kth page on; from the beginning
// where k is negative.
func anotherAccount(k, files int) trick {
	other := map[string]book{}
	for i := range files {
		b := made(i)
		b.id = fmt.Sprintf("other%019d", i)
		other[b.id] = b
	}
	return func(q *question, r *reply) {
		if k >= 0 && q.s.asked["list"] <= k {
			return
		}
		*r = reply{status: http.StatusOK, content: "application/json", date: r.date, was: "another account"}
		switch q.kind {
		case "details":
			if b, ok := other[q.id]; ok {
				r.says(b.json())
				return
			}
			r.absent()
		case "list":
			r.rows = texts(pageOf(inOrder(other), q.from, q.skip, q.s.page))
		case "one":
			r.rows = texts(inOrder(other)[:min(1, len(other))])
		}
	}
}

// revokedAfter is a private key that ends after the last of n pages.
func revokedAfter(n int) trick {
	return func(q *question, r *reply) {
		if q.s.asked["list"] >= n && q.kind != "list" {
			r.refuses(http.StatusUnauthorized)
			r.was = "revoked"
		}
	}
}

// flickers answers 404 by id, now and then, to questions about some files; never twice
// without a 200 in between. It comes last among the tricks.
func flickers(when calls, ids ...string) trick {
	owed := map[string]bool{}
	return func(q *question, r *reply) {
		if _, held := q.s.books[q.id]; q.kind != "details" || !held || !slices.Contains(ids, q.id) {
			return
		}
		if owed[q.id] {
			owed[q.id] = r.was != ""
		} else if when(q.n + 97*slices.Index(ids, q.id)) { // each file at its own times
			r.absent()
			r.was, owed[q.id] = "flickered", true
		}
	}
}

// sometimes is one of some calls, as the seed has it.
func sometimes(percent int, seed uint64) calls {
	return func(n int) bool { return rand.New(rand.NewPCG(seed, uint64(n))).IntN(100) < percent }
}

// stutters garbles look-ups by id.
func stutters(every, form int) trick {
	return func(q *question, r *reply) {
		if q.kind == "details" && (q.n+form)%max(every, 2) == 0 {
			garble(r, form)
			r.was = "stuttered"
		}
	}
}

// clockOff is ImageKit's clock.
func clockOff(by time.Duration) trick {
	return func(_ *question, r *reply) { r.date = r.date.Add(by) }
}
