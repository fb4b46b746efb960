package service_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// Attacks, end to end against the real binary. What each expects is that nobody gets
// or loses a file, learns of one, or makes trueup speak to somebody it should not.
//
//	attack                                             where
//	claim another's file; existence oracle             journey_test AnothersFileTeachesAndChangesNothing; here OwnershipAttacks, GuessingIDs
//	claim an unowned, old, or later version            here OwnershipAttacks
//	forged V1 tags and metadata; forged ticket, of a
//	  wrong key, of another account                    here OwnershipAttacks
//	victim's ticket on the attacker's file             here OwnershipAttacks
//	overwrite at the victim's path, V1 and V2          here OwnershipAttacks
//	V2: token used twice, parameter changed, added,
//	  left out, forged, of another key                 here UploadTokens
//	report before, between and after webhooks          here OrdersOfNews
//	same sub of another issuer; sub empty, 1 MB,
//	  confusable, NUL                                  badinput_test badTokens; here Subjects
//	fileId with path, query, NUL, too long             badinput_test badReports; here HostileIDs
//	id of another account                              outage_test TestKeyOfAnotherAccount; here OwnershipAttacks
//	dashboard copy, move, edit of tags                 here OwnershipAttacks; unknowns_test MoveChangesTheID
//	delete, then upload at the same path               here OwnershipAttacks
//	keys rotated mid-flight (tickets, report ids,
//	  webhook secrets)                                 here TestAttacksOverRotation; of JWKS: ingest/caller
//	guessing many ids                                  here GuessingIDs
//	JWT: alg none, HS for RS, jku x5u jwk crit kid,
//	  huge, upload token for app token and back        badinput_test badTokens; here TestAttacksOnTokens
//	webhook: unsigned, forged, doubled, old, future    badinput_test badWebhooks
//	webhook: one set bad beside a good one, gzip,
//	  10 MB declared and chunked, huge headers         here HostileWebhooks
//	slow headers, slow body                            here TestAttacks SlowSenders
//	operator API: no token, wrong, in the query, as a
//	  cookie; cross-origin; text/plain                 here OperatorAPI
//	SSRF: url of a report, redirect of ImageKit's API,
//	  of a JWKS, of a triggered webhook                here Outbound, TestAttacksOnTokens
//	stored XSS and terminal escapes in bodies; log
//	  injection                                        here StoredTexts, InjectedLines
//	secrets in logs, pages, dead letters               canary_test

// TestAttacks shares one installation: claim mode, a queue of its own, ImageKit without
// limits.
func TestAttacks(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_RATE_PER_USER": "0", "TRUEUP_BAD_SIGNATURES_PER_MINUTE": "0", "TRUEUP_NOT_FOUND_GRACE": "500ms", "TRUEUP_RETRY_MAX_AGE": "1s",
		"TRUEUP_CLAIM_WINDOW": "10m", "TRUEUP_KEYS": attackKey, "TRUEUP_ACCOUNT": attackAccount, "TRUEUP_TICKET_FIELD": ""})
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 5000, "burst": 5000}, "writeRateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	slow := in.sendSlowly()
	t.Run("Ownership", in.sub(attackOwnership))
	t.Run("UploadTokens", in.sub(attackUploadTokens))
	t.Run("OrdersOfNews", in.sub(attackOrders))
	t.Run("Subjects", in.sub(attackSubjects))
	t.Run("HostileIDs", in.sub(attackIDs))
	t.Run("HostileWebhooks", in.sub(attackWebhooks))
	t.Run("OperatorAPI", in.sub(attackOperator))
	t.Run("Outbound", in.sub(attackOutbound))
	t.Run("StoredTexts", in.sub(attackStored))
	t.Run("InjectedLines", in.sub(attackLines))
	t.Run("GuessingIDs", in.sub(attackGuessing))
	t.Run("SlowSenders", in.sub(slow))
	in.settles(time.Minute)
	in.converges(time.Minute)
	in.identity()
	in.dev.neverEnded()
}

const (
	attackKey     = "the-key-that-seals-in-the-attacks-1"
	attackAccount = "demo_id"
)

// trap is a listener that nobody should ever come to.
type trap struct {
	url  string
	mu   sync.Mutex
	hits []string
}

func newTrap(t testing.TB) *trap {
	t.Helper()
	x := &trap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.hits = append(x.hits, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(`{"keys":[]}`))
	}))
	t.Cleanup(server.Close)
	x.url = server.URL
	return x
}

func (x *trap) sprung(t testing.TB) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.hits) > 0 {
		t.Errorf("somebody went to %s: %q", x.url, x.hits)
	}
}

// flags are what evidence left on a file.
func (in *installation) flags(fileID string) (flags []string) {
	in.t.Helper()
	if err := in.db.QueryRow(in.t.Context(), "SELECT flags FROM trueup.file_state WHERE file_id=$1", fileID).Scan(&flags); err != nil {
		in.t.Fatal(err)
	}
	return flags
}

// awaitFlag waits until a flag is on a file.
func (in *installation) awaitFlag(fileID, flag string) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if flags := in.flags(fileID); !slices.Contains(flags, flag) {
			return fmt.Errorf("%s has the flags %v, want %s", fileID, flags, flag)
		}
		return nil
	})
}

// belongs fails unless a file's row is user's, by that kind of evidence.
func (in *installation) belongs(fileID, user, kind string) {
	in.t.Helper()
	if owner, is := in.awaitRow(fileID).User, in.ownerKind(fileID); owner != user || is != kind {
		in.t.Errorf("%s belongs to %q (%s), want %q (%s)", fileID, owner, is, user, kind)
	}
}

// notClaimable fails unless every report was rejected in the one way.
func (in *installation) notClaimable(user string, reports ...string) {
	in.t.Helper()
	for _, id := range reports {
		if a := in.outcome(user, id); strings.TrimSpace(string(a.body)) != `{"success":true,"state":"rejected","reason":"not_claimable"}` {
			in.t.Errorf("%s's report ended as %s", user, a.body)
		}
	}
}

// grant asks for an upload of user and returns what a client must send.
func (in *installation) grant(user string, payload map[string]any) (fields map[string]string) {
	in.t.Helper()
	a := in.call(user, "POST", "/generate-upload-token", map[string]any{"uploadPayload": payload}).want(in.t, http.StatusOK)
	fields = map[string]string{"token": a.text(in.t, "token")}
	signed, _ := a.get(in.t, "uploadPayload").(map[string]any)
	for name, value := range signed {
		fields[name], _ = value.(string)
	}
	return fields
}

// sendUpload uploads with exactly these fields, whatever comes of it.
func (in *installation) sendUpload(version string, fields map[string]string, n int) answer {
	in.t.Helper()
	ct, body := form(in.t, fields, "x.png", picture(n))
	return in.imagekit("POST", "/api/"+version+"/files/upload", false, ct, body)
}

// ticketOf is the ticket in what a client must send.
func ticketOf(t testing.TB, fields map[string]string) string {
	t.Helper()
	for tag := range strings.SplitSeq(fields["tags"], ",") {
		if strings.HasPrefix(tag, "tu1.") {
			return tag
		}
	}
	t.Fatalf("no ticket in %v", fields)
	return ""
}

// asJSON is v, for a request.
func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
